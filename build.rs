//! For the program that carries the files of pages (feature `embed`): compiles it anew when they change, because the compiler
//! doesn't notice new ones; and makes it run on systems with an older C++ or OpenMP library, or none.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "embed")]
    {
        let pages = "target/embed";
        assert!(
            std::path::Path::new(pages).is_dir(),
            "the feature 'embed' needs {pages}, which 'scripts/build pages' makes"
        );
        println!("cargo::rerun-if-changed={pages}");
        if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
            link_statically(&["stdc++", "gomp"]);
        }
    }
}

/// Links libraries of the C compiler as parts of the program. Linkers take the first folder that has a library in either form,
/// so this puts one before all others in which there is only the static form.
#[cfg(feature = "embed")]
fn link_statically(libraries: &[&str]) {
    use std::{env, fs, os::unix::fs::symlink, path::PathBuf, process::Command};
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("static");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("cargo's folder for this script can be written to");
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    for library in libraries {
        let file = format!("lib{library}.a");
        // Prints the path, or the name alone if there is no such library.
        let out = Command::new(&compiler).arg(format!("-print-file-name={file}")).output().expect("a C++ compiler");
        let path = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
        if path.is_absolute() {
            symlink(path, folder.join(file)).expect("the folder was empty");
        }
    }
    // Of the program only: the compiler makes a shared library of the crate, too, which can't have them.
    println!("cargo::rustc-link-arg-bins=-L{}", folder.display());
}
