package extauthz

import (
	"net"
	"sync"
)

// limitConnections closes connections beyond a number at once, so that the sum of their windows stays bounded. It tells of each.
func limitConnections(l net.Listener, most int, refused func()) net.Listener {
	return &limitedListener{Listener: l, places: make(chan struct{}, most), refused: refused}
}

type limitedListener struct {
	net.Listener
	places  chan struct{}
	refused func()
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &limitedConn{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			l.refused()
			conn.Close()
		}
	}
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
