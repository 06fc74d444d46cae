//! Which module uses which: reads every file of the crate with `syn`, and follows `use`, paths and re-exports to the file
//! that defines what is named. `layout` holds the result against the directions that the code map promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use syn::{
    Attribute, Item, ItemUse, Macro, Meta, UseTree,
    visit::{self, Visit},
};

/// A module's path from the root of the crate: `["server", "http", "upload"]`.
pub(crate) type Module = Vec<String>;

/// The modules of the crate with what each names.
pub(crate) struct Imports(BTreeMap<Module, Names>);

/// What a file names. Code under `cfg(test)` is left out: tests may reach across.
#[derive(Default)]
struct Names {
    /// What `use` brings into scope, by the name it has here.
    scope: BTreeMap<String, Vec<String>>,
    /// Paths of at least two segments, as they are written, and those of `use`.
    paths: BTreeSet<Vec<String>>,
}

impl Imports {
    /// Reads all files under `src`.
    pub(crate) fn read(src: &Path) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![src.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let code = fs::read_to_string(&path).unwrap();
                    files.push((path.strip_prefix(src).unwrap().to_owned(), code));
                }
            }
        }
        Self::of(files.iter().map(|(file, code)| (file.as_path(), code.as_str())))
    }

    /// The files of a crate with their code.
    pub(crate) fn of<'a>(files: impl IntoIterator<Item = (&'a Path, &'a str)>) -> Self {
        let names = |code: &str| {
            let mut names = Names::default();
            names.visit_file(&syn::parse_file(code).unwrap());
            names
        };
        Self(files.into_iter().map(|(file, code)| (module_of(file), names(code))).collect())
    }

    /// Every pair of modules of which the first uses something that the second defines.
    pub(crate) fn edges(&self) -> BTreeSet<(Module, Module)> {
        let mut edges = BTreeSet::new();
        for (module, names) in &self.0 {
            for path in &names.paths {
                if let Some(to) = self.absolute(module, path).and_then(|path| self.home(path))
                    && to != *module
                {
                    edges.insert((module.clone(), to));
                }
            }
        }
        edges
    }

    /// A path as seen from the root of the crate; none if it leads to another crate or to an item of this file.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            // The crate by its name, as `main` sees it.
            "hark" if module.is_empty() => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let parent = module.split_last()?.1.to_vec();
                if rest.first().is_some_and(|next| next == "super") {
                    return self.absolute(&parent, rest);
                }
                Some([&parent, rest].concat())
            }
            name => {
                if let Some(brought) = self.0[module].scope.get(name) {
                    // `use rand;` and `use libc::libc` name another crate.
                    if brought.first() == Some(first) {
                        return None;
                    }
                    return Some([self.absolute(module, brought)?, rest.to_vec()].concat());
                }
                let child = [module.as_slice(), std::slice::from_ref(first)].concat();
                self.0.contains_key(&child).then(|| [child, rest.to_vec()].concat())
            }
        }
    }

    /// The module that defines what an absolute path names, also where another one hands it on.
    fn home(&self, path: Vec<String>) -> Option<Module> {
        let mut path = path;
        for _ in 0..16 {
            let length = (1..=path.len()).rev().find(|length| self.0.contains_key(&path[..*length]))?;
            let module = path[..length].to_vec();
            let handed_on = path.get(length).and_then(|name| self.0[&module].scope.get(name));
            match handed_on.and_then(|brought| self.absolute(&module, brought)) {
                Some(elsewhere) => path = [elsewhere, path[length + 1..].to_vec()].concat(),
                // From another crate: the module that hands it on.
                None => return Some(module),
            }
        }
        panic!("{path:?} is handed on in a circle");
    }
}

fn module_of(file: &Path) -> Module {
    let mut module: Module = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module == ["lib"] {
        module.clear();
    }
    module
}

/// The modules that are beside each other in `parent` and use each other in a circle, each with those it uses.
/// What stands under a module counts as that module.
pub(crate) fn circles(edges: &BTreeSet<(Module, Module)>) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let mut levels: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, to) in edges {
        let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
        if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
            let level = levels.entry(from[..common].to_vec()).or_default();
            level.entry(a.clone()).or_default().insert(b.clone());
        }
    }
    for level in levels.values_mut() {
        // What uses nothing that is left, and what nothing left uses, is in no circle.
        loop {
            let before: usize = level.values().map(BTreeSet::len).sum();
            let users: BTreeSet<String> = level.keys().cloned().collect();
            level.values_mut().for_each(|used| used.retain(|name| users.contains(name)));
            level.retain(|_, used| !used.is_empty());
            let used: BTreeSet<String> = level.values().flatten().cloned().collect();
            level.retain(|name, _| used.contains(name));
            if before == level.values().map(BTreeSet::len).sum() {
                break;
            }
        }
    }
    levels.retain(|_, level| !level.is_empty());
    levels
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

impl Names {
    fn add_use(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.add_use(&with(&path.ident), &path.tree),
            UseTree::Name(name) if name.ident == "self" => {
                if let Some(last) = before.last() {
                    self.bring(last.clone(), before.to_vec());
                }
            }
            UseTree::Name(name) => self.bring(name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(rename) if rename.ident == "self" => self.bring(rename.rename.to_string(), before.to_vec()),
            UseTree::Rename(rename) => self.bring(rename.rename.to_string(), with(&rename.ident)),
            UseTree::Glob(_) => {
                self.paths.insert(before.to_vec());
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_use(before, tree)),
        }
    }

    fn bring(&mut self, name: String, path: Vec<String>) {
        self.scope.insert(name, path);
    }

    fn add_path(&mut self, path: Vec<String>) {
        if path.len() > 1 {
            self.paths.insert(path);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let before = self.scope.clone();
        self.add_use(&[], &item.tree);
        // What is only handed on is used by those who name it here.
        if matches!(item.vis, syn::Visibility::Inherited) {
            let is_new = |(name, path): &(&String, &Vec<String>)| before.get(*name) != Some(*path);
            let brought: Vec<_> = self.scope.iter().filter(is_new).map(|(_, path)| path.clone()).collect();
            brought.into_iter().for_each(|path| self.add_path(path));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add_path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        visit::visit_macro(self, call);
        for path in paths_in(&call.tokens.to_string()) {
            self.add_path(path);
        }
    }
}

/// The paths in the tokens of a macro, of which nobody knows what they mean.
fn paths_in(tokens: &str) -> Vec<Vec<String>> {
    let mut paths = vec![Vec::new()];
    let mut joined = false;
    for (n, part) in tokens.split('"').enumerate() {
        // Strings, but for those with a quote inside, which do no harm.
        if n % 2 == 1 {
            continue;
        }
        for word in part.replace("::", " :: ").split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            match word {
                "" => {}
                "::" => joined = true,
                word => {
                    if !joined {
                        paths.push(Vec::new());
                    }
                    if let Some(path) = paths.last_mut() {
                        path.push(word.to_owned());
                    }
                    joined = false;
                }
            }
        }
    }
    paths
}
