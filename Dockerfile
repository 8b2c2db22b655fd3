# For those who have a Docker daemon; `make image` needs none, and makes a smaller image. From the root of the source code:
#
#   docker build -t dotfour:0.1.0 .
#
# The platform is that of the builder (`--platform` with emulation for another).
FROM rust:1.95-bookworm AS build
WORKDIR /src
RUN apt-get update && apt-get install -y --no-install-recommends nftables binutils python3 && rm -rf /var/lib/apt/lists/*
COPY . .
RUN make build && SOURCE_DATE_EPOCH=0 scripts/dist-image --programs target/release --out /image.tar --unpacked /root-of-image

FROM scratch
COPY --from=build /root-of-image/ /
ENV PATH=/usr/sbin:/usr/bin
ENTRYPOINT ["/usr/bin/dotfour-ipamd"]
CMD ["run"]
