# The image that k8s/ runs: one static binary and nothing else.
#
#   docker build -t registry.example.com/mountwarden:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --push -t registry.example.com/mountwarden:0.1.0 .
#
# `make image` makes the same image from a binary that was built outside: packaging/image.sh.

FROM --platform=$BUILDPLATFORM docker.io/library/rust:1.95.0-bookworm AS build
ARG TARGETARCH=amd64
ARG MOUNTWARDEN_REVISION=""
WORKDIR /src
# Cross-compiled: no compiler runs under emulation.
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross
COPY . .
RUN packaging/static.sh "$TARGETARCH" /out/usr/local/bin

# Nothing that could be run but the agent, and nothing to update but the agent. musl asks /etc/hosts and the servers of
# /etc/resolv.conf, which the kubelet puts into the container; with `dnsPolicy: Default` they are the node's.
FROM scratch
COPY --from=build /out /
# Whom the coordinator runs as. The agent's pod says `runAsUser: 0` itself (k8s/README.md has the reasons).
USER 65532:65532
EXPOSE 12049
ENTRYPOINT ["/usr/local/bin/mountwarden"]
CMD ["run"]
