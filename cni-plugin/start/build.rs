//! How the one program without libc is linked, so that a plain `cargo build` is all it takes.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=program.ld");
    let arguments = [
        // No libc and none of its start files; nothing to load and nothing to relocate at run time.
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        // Fewer segments, and what a pod needs side by side; see there.
        "-T",
        concat!(env!("CARGO_MANIFEST_DIR"), "/program.ld"),
        // What would want segments and pages of its own, for what this program does not do: protect relocated data,
        // unwind, and be found by a build's id.
        "-Wl,-z,norelro",
        "-Wl,--no-eh-frame-hdr",
        "-Wl,--build-id=none",
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
