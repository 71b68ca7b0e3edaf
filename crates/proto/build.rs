//! Compiles the schema with `protoc`, which the `protobuf-compiler` package of Debian and Ubuntu has.

fn main() -> std::io::Result<()> {
    let files = ["definition", "service", "admin"]
        .map(|name| format!("proto/apache/rocketmq/v2/{name}.proto"));
    tonic_prost_build::configure()
        // Bodies stay slices of what the socket brought.
        .bytes(".apache.rocketmq.v2.Message.body")
        .compile_protos(&files, &["proto".to_owned()])
}
