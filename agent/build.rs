//! Links the program with packed relative relocations, which glibc 2.36 and later read: the table of
//! them is read whole at every start, and unpacked it would stay in memory with hundreds of KiB.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
