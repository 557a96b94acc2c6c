//! Compiles every `src/bpf/*.bpf.c` against the vendored kernel types into a skeleton in `OUT_DIR`.
//!
//! Build dependencies are matched against the host, the objects against the target: both are checked.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(stockade_kernel)");
    println!("cargo::rerun-if-env-changed=STOCKADE_PORTABLE");
    println!("cargo::rerun-if-changed=build.rs");
    // STOCKADE_PORTABLE=1 builds what other systems get, so that `make check` can prove it on Linux.
    let portable = std::env::var_os("STOCKADE_PORTABLE").is_some_and(|v| v == "1");
    let target_os = std::env::var("CARGO_CFG_TARGET_OS").expect("cargo sets CARGO_CFG_TARGET_OS");
    if portable || target_os != "linux" {
        return;
    }
    println!("cargo::rustc-cfg=stockade_kernel");
    #[cfg(target_os = "linux")]
    bpf::build();
    #[cfg(not(target_os = "linux"))]
    fail(
        "building stockade for Linux needs a Linux host: its BPF objects are compiled with libbpf",
    );
}

/// Ends the build with one sentence instead of a panic's backtrace.
fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    std::process::exit(1);
}

#[cfg(target_os = "linux")]
mod bpf {
    use std::collections::BTreeSet;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use libbpf_cargo::SkeletonBuilder;
    use libbpf_rs::btf::{Btf, BtfKind, BtfType};
    use object::{Object as _, ObjectSection as _, SectionKind};

    pub(super) fn build() {
        println!("cargo::rerun-if-changed=src/bpf");
        println!("cargo::rerun-if-changed=vmlinux");
        println!("cargo::rerun-if-env-changed=CLANG");
        println!("cargo::rerun-if-env-changed=BPF_CFLAGS");

        let root = PathBuf::from(
            std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"),
        );
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        let arch =
            std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
        let define = match arch.as_str() {
            "x86_64" => "-D__TARGET_ARCH_x86",
            "aarch64" => "-D__TARGET_ARCH_arm64",
            other => super::fail(&format!(
                "no kernel types for {other} in vmlinux/: stockade is built for x86_64 and aarch64"
            )),
        };
        let clang = clang();
        let mut args: Vec<OsString> = vec![
            define.into(),
            "-mcpu=v3".into(),
            // A loop's copies are all verified, and most loops here end at once in most sessions.
            "-fno-unroll-loops".into(),
            "-Wall".into(),
            format!("-I{}", root.join("vmlinux").display()).into(),
            format!("-I{}", root.join("src/bpf").display()).into(),
            // Line info holds source paths: two checkouts must give the same object.
            format!("-ffile-prefix-map={}=.", root.display()).into(),
            format!("-ffile-prefix-map={}=out", out.display()).into(),
        ];
        if let Some(extra) = std::env::var_os("BPF_CFLAGS") {
            args.extend(
                extra
                    .to_string_lossy()
                    .split_whitespace()
                    .map(OsString::from),
            );
        }
        // Most of a build's time is clang's, who uses one CPU.
        let sources = sources(&root.join("src/bpf"));
        let next = AtomicUsize::new(0);
        let compile_next = || {
            let mut names = BTreeSet::new();
            while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                compile(source, &clang, &args, &out, &mut names);
            }
            names
        };
        let kernel_types = std::thread::scope(|scope| {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from);
            let threads: Vec<_> = (0..cpus).map(|_| scope.spawn(compile_next)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().expect("a compiler's thread"))
                .collect::<BTreeSet<_>>()
        });
        let list = format!(
            "pub(super) const KERNEL_TYPES: &[&str] = &{:?};\n",
            Vec::from_iter(kernel_types)
        );
        if let Err(error) = std::fs::write(out.join("kernel_types.rs"), list) {
            super::fail(&format!("{}: {error}", out.display()));
        }
    }

    /// Compiles a source into its two objects (src/bpf/kfunc.bpf.h), its skeleton and what the loader has to know.
    fn compile(
        source: &Path,
        clang: &Path,
        args: &[OsString],
        out: &Path,
        kernel_types: &mut BTreeSet<String>,
    ) {
        let name = source
            .file_name()
            .and_then(|n| n.to_str())
            .expect("our own names are UTF-8");
        let stem = name.trim_end_matches(".bpf.c");
        let object = out.join(format!("{stem}.bpf.o"));
        let with_casts = compiler(source, clang, args, true)
            .obj(&object)
            .reference_obj(true)
            .build_and_generate(out.join(format!("{stem}.skel.rs")));
        let plain = out.join(format!("{stem}.plain.bpf.o"));
        let both =
            with_casts.and_then(|()| compiler(source, clang, args, false).obj(&plain).build());
        if let Err(error) = both {
            super::fail(&format!(
                "src/bpf/{name} does not compile with {}: {error:#}",
                clang.display()
            ));
        }
        name_types(&object, kernel_types);
        name_types(&plain, kernel_types);
        let marks = format!("&{:?}", marks(&object));
        if let Err(error) = std::fs::write(out.join(format!("{stem}.marks.rs")), marks) {
            super::fail(&format!("{}: {error}", out.display()));
        }
    }

    fn compiler(source: &Path, clang: &Path, args: &[OsString], casts: bool) -> SkeletonBuilder {
        let casts = OsString::from(format!("-DSTK_CASTS={}", u8::from(casts)));
        let mut builder = SkeletonBuilder::new();
        builder
            .source(source)
            .clang(clang)
            .clang_args(args.iter().cloned().chain([casts]));
        builder
    }

    /// Where an object has the numbers that the loader replaces (src/bpf/kfunc.bpf.h): the offsets of the instructions
    /// that move them.
    fn marks(object: &Path) -> Vec<usize> {
        /// `dst = imm`, 64 bits wide (include/uapi/linux/bpf.h).
        const MOVE: u8 = 0xb7;
        let malformed = |why: &dyn std::fmt::Display| -> ! {
            super::fail(&format!("{}: {why}", object.display()))
        };
        let bytes = std::fs::read(object).unwrap_or_else(|e| malformed(&e));
        let elf = object::File::parse(&*bytes).unwrap_or_else(|e| malformed(&e));
        let mut found = Vec::new();
        for section in elf.sections().filter(|s| s.kind() == SectionKind::Text) {
            let (start, _) = section.file_range().unwrap_or_default();
            let data = section.data().unwrap_or_else(|e| malformed(&e));
            for (place, instruction) in data.chunks_exact(8).enumerate() {
                // The high bytes of STK_CALL_… and STK_TYPE_…; no constant of ours looks like that.
                if instruction[0] == MOVE && matches!(&instruction[5..], b"KTS" | b"TTS") {
                    found.push(usize::try_from(start).unwrap_or(0) + place * 8);
                }
            }
        }
        found
    }

    /// Adds the names of the kernel's types that an object's relocations can name.
    fn name_types(object: &Path, names: &mut BTreeSet<String>) {
        let btf = Btf::from_path(object).unwrap_or_else(|e| {
            super::fail(&format!("{}: no type information: {e}", object.display()))
        });
        let types = (1..).map_while(|id: u32| btf.type_by_id::<BtfType<'_>>(id.into()));
        for ty in types {
            let named = matches!(
                ty.kind(),
                BtfKind::Struct | BtfKind::Union | BtfKind::Enum | BtfKind::Typedef
            );
            let name = ty.name().and_then(|n| n.to_str()).filter(|_| named);
            // What follows three underscores tells variants of a type apart (libbpf's flavours).
            if let Some(name) = name.and_then(|n| n.split("___").next())
                && !name.is_empty()
                && !name.starts_with("stk_")
            {
                names.insert(name.to_owned());
            }
        }
    }

    /// The compiler to use: `CLANG`, or `clang` from `PATH`. Ends the build when it cannot be run.
    fn clang() -> PathBuf {
        let clang = std::env::var_os("CLANG")
            .filter(|c| !c.is_empty())
            .map_or_else(|| "clang".into(), PathBuf::from);
        match Command::new(&clang).arg("--version").output() {
            Ok(version) if version.status.success() => clang,
            Ok(version) => super::fail(&format!(
                "{} --version failed: {}",
                clang.display(),
                String::from_utf8_lossy(&version.stderr).trim()
            )),
            Err(error) => super::fail(&format!(
                "{} cannot be run ({error}); install the package clang (apt-get install clang) or set CLANG",
                clang.display()
            )),
        }
    }

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
            .unwrap_or_else(|e| super::fail(&format!("{}: {e}", dir.display())))
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| path.to_str().is_some_and(|p| p.ends_with(".bpf.c")))
            .collect();
        found.sort();
        found
    }
}
