//! Compiles the protos (no installed `protoc` needed) and keeps their descriptors for reflection.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    let agent = protox::compile(["proto/shutterd/v1/agent.proto"], ["proto"])?;
    std::fs::write(out_dir.join("agent_descriptor.bin"), agent.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(agent)?;
    let link = protox::compile(["proto/shutterd/link/v1/link.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(false).build_server(false).compile_fds(link)?;
    Ok(())
}
