//! The files that pages need: style, script, WebAssembly, icons. cargo-leptos puts them into a folder; a program that was built
//! with the feature `embed` carries them. A folder that `LEPTOS_SITE_ROOT` names goes first.

#[cfg(feature = "embed")]
mod embedded;

use crate::model::page::AppFiles;
use axum::{Router, extract::Request, response::Response};
use leptos::config::LeptosOptions;
use std::{convert::Infallible, path::Path};
use tower::Service;
use tower_http::services::{
    ServeDir,
    fs::{Backend, DefaultServeDirFallback},
};

/// Where the files of pages come from, and the addresses of those that every page names.
#[derive(Clone, Debug)]
pub struct PageFiles {
    pub app: AppFiles,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Folder(String),
    #[cfg(feature = "embed")]
    Embedded,
}

impl PageFiles {
    /// The files that this program carries, or else those of the folder in the options. `chosen`: whether somebody has chosen
    /// that folder, which then goes first. `program` is the folder of this program, where cargo-leptos puts the list of hashes.
    pub fn find(options: &LeptosOptions, chosen: bool, program: &Path) -> Self {
        #[cfg(feature = "embed")]
        if !chosen {
            return Self { app: embedded::app_files(&options.site_pkg_dir), source: Source::Embedded };
        }
        let _ = chosen;
        let hashes =
            options.hash_files.then(|| std::fs::read_to_string(program.join(&*options.hash_file)).ok()).flatten();
        Self { app: named_files(options, hashes.as_deref()), source: Source::Folder(options.site_root.to_string()) }
    }

    /// What is missing, with its consequence and the remedy. Arguments are those of [`PageFiles::find`].
    #[must_use]
    pub fn problem(&self, options: &LeptosOptions, program: &Path) -> Option<String> {
        const CONSEQUENCE: &str = "Pages will have no style and no scripts";
        let root = self.folder()?;
        let names = program.join(&*options.hash_file);
        if options.hash_files && !names.is_file() {
            return Some(format!(
                "{CONSEQUENCE}: {} is missing. 'cargo leptos build' makes it; keep it beside the program",
                names.display()
            ));
        }
        let files = Path::new(root).join(&*options.site_pkg_dir);
        (!files.is_dir()).then(|| {
            format!(
                "{CONSEQUENCE}: there is no folder {}. Start Hark where it was built, or set LEPTOS_SITE_ROOT",
                files.display()
            )
        })
    }

    /// The folder that they are read from; none if this program carries them.
    fn folder(&self) -> Option<&str> {
        match &self.source {
            Source::Folder(root) => Some(root),
            #[cfg(feature = "embed")]
            Source::Embedded => None,
        }
    }

    /// Adds the files to routes; `pages` answers requests that ask for none of them.
    pub fn serve<S, P>(&self, routes: Router<S>, pages: P) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
        P: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static,
    {
        match &self.source {
            Source::Folder(root) => routes.fallback_service(with_pages(ServeDir::new(root), pages)),
            #[cfg(feature = "embed")]
            Source::Embedded => {
                routes.fallback_service(with_pages(ServeDir::with_backend("", embedded::Embedded), pages))
            }
        }
    }
}

/// Not `file_and_error_handler` of leptos_axum, which mixes up the headers of files and pages (docs/upstream.md).
fn with_pages<B: Backend, P>(files: ServeDir<DefaultServeDirFallback, B>, pages: P) -> ServeDir<P, B> {
    files
        .precompressed_gzip()
        .precompressed_br()
        .append_index_html_on_directories(false)
        .call_fallback_on_method_not_allowed(true)
        .fallback(pages)
}

/// The addresses of the app's files, with the hashes that cargo-leptos has written: lines like `css: bnAGyp437IF`.
fn named_files(options: &LeptosOptions, hashes: Option<&str>) -> AppFiles {
    let LeptosOptions { output_name: name, site_pkg_dir: folder, .. } = options;
    let Some(hashes) = hashes else {
        return AppFiles {
            style: format!("/{folder}/{name}.css"),
            script: format!("/{folder}/{name}.js"),
            wasm: format!("/{folder}/{name}_bg.wasm"),
        };
    };
    let address = |kind: &str| {
        let hash = hashes.lines().find_map(|line| line.trim().strip_prefix(kind)?.strip_prefix(':'));
        let hash = hash.map(|hash| format!(".{}", hash.trim())).unwrap_or_default();
        format!("/{folder}/{name}{hash}.{kind}")
    };
    AppFiles { style: address("css"), script: address("js"), wasm: address("wasm") }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Programs that carry the files have a test of their own: `scripts/test dist` starts one in an empty folder.
    #[test]
    fn missing_files_of_pages_are_reported_and_not_fatal() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("site").display().to_string();
        let options = LeptosOptions::builder().output_name("hark").hash_files(true).site_root(root).build();
        let find = || {
            let files = PageFiles::find(&options, true, folder.path());
            let problem = files.problem(&options, folder.path());
            (files.app, problem)
        };
        let (app, problem) = find();
        assert!(problem.unwrap().contains("hash.txt"));
        assert_eq!(app.style, "/pkg/hark.css");

        std::fs::write(folder.path().join("hash.txt"), "js: aB\nwasm: cD\ncss: eF\n").unwrap();
        let (app, problem) = find();
        assert!(problem.unwrap().contains("LEPTOS_SITE_ROOT"));
        assert_eq!(
            [&*app.style, &*app.script, &*app.wasm],
            ["/pkg/hark.eF.css", "/pkg/hark.aB.js", "/pkg/hark.cD.wasm"]
        );
        std::fs::create_dir_all(folder.path().join("site/pkg")).unwrap();
        assert_eq!(find().1, None);
    }
}
