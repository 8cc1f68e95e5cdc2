//! Compiles the .proto files with protox, so that building needs no protoc.

use std::path::PathBuf;

/// What generated structs are made of.
const FILES: [&str; 14] = [
    "fulmar/types/v1/identity.proto",
    "fulmar/types/v1/publication.proto",
    "fulmar/types/v1/registry.proto",
    "fulmar/types/v1/mail.proto",
    "fulmar/types/v1/task.proto",
    "fulmar/types/v1/backlog.proto",
    "fulmar/types/v1/plane.proto",
    "fulmar/types/v1/steer.proto",
    "fulmar/types/v1/command.proto",
    "fulmar/types/v1/log.proto",
    "fulmar/types/v1/snapshot.proto",
    "fulmar/types/v1/record.proto",
    "fulmar/raft/v1/raft.proto",
    "fulmar/peer/v1/peer.proto",
];

/// What is only described: servers and clients turn it into documents and back, see src/document.rs.
const DESCRIBED: [&str; 26] = [
    "fulmar/admin/v1/access.proto",
    "fulmar/admin/v1/alarms.proto",
    "fulmar/admin/v1/apps.proto",
    "fulmar/admin/v1/audit.proto",
    "fulmar/admin/v1/authorities.proto",
    "fulmar/admin/v1/backups.proto",
    "fulmar/admin/v1/bans.proto",
    "fulmar/admin/v1/batch_tasks.proto",
    "fulmar/admin/v1/cluster.proto",
    "fulmar/admin/v1/commands.proto",
    "fulmar/admin/v1/devices.proto",
    "fulmar/admin/v1/diagnosis.proto",
    "fulmar/admin/v1/iam.proto",
    "fulmar/admin/v1/messages.proto",
    "fulmar/admin/v1/people.proto",
    "fulmar/admin/v1/products.proto",
    "fulmar/admin/v1/retained.proto",
    "fulmar/admin/v1/rules.proto",
    "fulmar/admin/v1/sensoro.proto",
    "fulmar/admin/v1/sessions.proto",
    "fulmar/admin/v1/settings.proto",
    "fulmar/admin/v1/shadows.proto",
    "fulmar/admin/v1/shared.proto",
    "fulmar/admin/v1/subscriptions.proto",
    "fulmar/admin/v1/topics.proto",
    "fulmar/admin/v1/traces.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=fulmar");
    let descriptors = protox::compile(FILES, [&root])?;
    // What reflection shows, and what turns documents into messages.
    let admin = protox::compile(DESCRIBED, [&root])?;
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
        .boxed(".fulmar.types.v1.Command.command.steer")
        .boxed(".fulmar.types.v1.SnapshotRecord.part.steer")
        .boxed(".fulmar.types.v1.Outcome.outcome.plane")
        .compile_fds(descriptors)?;
    Ok(())
}
