# syntax=docker/dockerfile:1

# Built on this machine's platform for the one asked for: Go cross-compiles.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION=devel
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH
RUN go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/hookauthz . \
 && go build -trimpath -o /out/app ./examples/app \
 && go build -trimpath -o /out/certs ./examples/certs \
 && mkdir -m 0750 /out/tls

# For docker-compose.yml only: makes the certificates of the example. Its folder gives a new volume its owner.
FROM scratch AS example-certs
COPY --from=build /out/certs /certs
COPY --from=build --chown=10001:10001 /out/tls /run/hookauthz-tls
USER 10001:10001
ENTRYPOINT ["/certs", "/run/hookauthz-tls"]

# For docker-compose.yml only: the sample application.
FROM scratch AS example-app
COPY --from=build /out/app /app
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/app"]

# The image of hookauthz: one static binary and the CA roots that fetched address lists are checked with.
FROM scratch
LABEL org.opencontainers.image.title="hookauthz" \
      org.opencontainers.image.description="Envoy external authorization for webhooks" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/hookauthz /hookauthz
USER 65532:65532
EXPOSE 9001 9002 9003
ENTRYPOINT ["/hookauthz"]
CMD ["serve", "--policies", "/etc/hookauthz/policies"]
