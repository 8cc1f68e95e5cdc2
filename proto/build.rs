//! Compiles the .proto files with protox, so that building needs no protoc.

use std::path::PathBuf;

const FILES: [&str; 14] = [
    "fulmar/types/v1/identity.proto",
    "fulmar/types/v1/publication.proto",
    "fulmar/types/v1/registry.proto",
    "fulmar/types/v1/mail.proto",
    "fulmar/types/v1/task.proto",
    "fulmar/types/v1/backlog.proto",
    "fulmar/types/v1/plane.proto",
    "fulmar/types/v1/command.proto",
    "fulmar/types/v1/log.proto",
    "fulmar/types/v1/snapshot.proto",
    "fulmar/types/v1/record.proto",
    "fulmar/raft/v1/raft.proto",
    "fulmar/peer/v1/peer.proto",
    "fulmar/admin/v1/cluster.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=fulmar");
    let descriptors = protox::compile(FILES, [&root])?;
    // What reflection shows, and what turns documents into messages.
    let admin = protox::compile(FILES.into_iter().filter(|file| file.starts_with("fulmar/admin/")), [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("admin.binpb"), prost::Message::encode_to_vec(&admin))?;
    // Every `bytes` field is a slice of the frame that it was decoded from; a secret shows itself to nobody.
    // What is large and rare is boxed, so that commands and parts stay small.
    tonic_prost_build::configure()
        .bytes(".")
        .skip_debug([".fulmar.types.v1.Secret"])
        .boxed(".fulmar.types.v1.Command.command.registry")
        .boxed(".fulmar.types.v1.SnapshotRecord.part.registry")
        .boxed(".fulmar.types.v1.Command.command.plane")
        .boxed(".fulmar.types.v1.SnapshotRecord.part.plane")
        .boxed(".fulmar.types.v1.Outcome.outcome.plane")
        .compile_fds(descriptors)?;
    Ok(())
}
