package signature_test

import (
	"fmt"
	"time"

	"github.com/hookauthz/hookauthz/policy/signature"
)

func Example() {
	stripe, _ := signature.Preset("stripe")
	key, err := stripe.NewKey([]byte("webhook_secret"))
	if err != nil {
		fmt.Println(err)
		return
	}
	d := signature.Delivery{
		Method:  "POST",
		Path:    "/webhooks/stripe",
		Headers: []signature.Header{{Name: "stripe-signature", Value: "t=1767225600,v1=ca2f94b9b7f31e9d3b9ca5a5b4b0b4a1b5a5c2d1e0f9e8d7c6b5a49382716050"}},
		Body:    [][]byte{[]byte(`{"id":"evt_1","type":"invoice.paid"}`)},
	}
	var v signature.Verification
	fmt.Println("parsed:", stripe.Parse(&v, &d))
	fmt.Println("matches:", v.Matches(key))

	signed, err := stripe.Sign(key, d, time.Unix(1767225600, 0), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	stripe.Parse(&v, &signed)
	fmt.Println("matches when signed:", v.Matches(key))
	fmt.Println("fresh a minute later:", v.Fresh(time.Unix(1767225660, 0), stripe.Tolerance()))
	fmt.Println("event:", v.Event(), v.DeliveryID())
	// Output:
	// parsed: nothing is wrong
	// matches: false
	// matches when signed: true
	// fresh a minute later: true
	// event: invoice.paid evt_1
}

func ExampleCompile() {
	_, faults := signature.Compile(signature.Spec{
		Alg:  "hmac-sha256",
		Sign: []string{"{header:X-Timestamp}.{boddy}"},
		Sig:  signature.SigSpec{In: []string{"header:X-Signature"}},
	})
	for _, f := range faults {
		fmt.Printf("%s: %s\n", f.Field, f.Problem)
	}
	// Output:
	// sign: "boddy" is not a source
	// sig.enc: no encoding is named ""
}
