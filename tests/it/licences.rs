//! Licences, sources, bans and duplicates of everything that is built in, as deny.toml lists them.
//!
//! Without cargo-deny: licences come from `cargo metadata` of this platform, whose packages are all
//! on the disk once a build ran; the rest from Cargo.lock, which knows every platform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// The only source of packages.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A crate with its version, where one was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    name: String,
    /// The first components of a version: `0.17` is every 0.17.x.
    version: Option<String>,
}

impl Spec {
    /// Reads `name` or `name:0.17`, the forms of deny.toml that are used here.
    fn parse(text: &str) -> Self {
        assert!(!text.contains('@'), "deny.toml: write {text} as name:version");
        let (name, version) = text.split_once(':').unzip();
        let name = name.unwrap_or(text).to_owned();
        Self { name, version: version.map(str::to_owned) }
    }

    fn matches(&self, package: &Package) -> bool {
        let version = self.version.as_deref().is_none_or(|wanted| {
            let rest = package.version.strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        self.name == package.name && version
    }
}

/// The lists of deny.toml.
struct Lists {
    licences: Vec<String>,
    /// Crates that may have a further licence.
    exceptions: Vec<(String, String)>,
    skipped: Vec<Spec>,
    banned: Vec<Spec>,
}

/// One package of the lock file or of cargo's metadata.
#[derive(Clone, Debug)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    licence: Option<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table(file: &str) -> toml::Table {
    let text = std::fs::read_to_string(root().join(file)).expect("the file can be read");
    text.parse().unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn lists() -> Lists {
    let file = table("deny.toml");
    let word = |section: &str, key: &str| file[section][key].as_str().unwrap_or_default();
    for (section, key) in [
        ("licenses", "unused-allowed-license"),
        ("bans", "multiple-versions"),
        ("sources", "unknown-registry"),
        ("sources", "unknown-git"),
    ] {
        assert_eq!(word(section, key), "deny", "deny.toml: {section}.{key}");
    }
    assert_eq!(
        file["sources"].as_table().map(toml::Table::len),
        Some(2),
        "no source but crates.io"
    );
    let specs = |key: &str| -> Vec<Spec> {
        let entries = file["bans"][key].as_array().expect("a list");
        let spec = |entry: &toml::Value| {
            let reason = entry["reason"].as_str().unwrap_or_default();
            assert!(!reason.is_empty(), "deny.toml: {entry:?} has no reason");
            Spec::parse(entry["crate"].as_str().expect("an entry names a crate"))
        };
        entries.iter().map(spec).collect()
    };
    let licences = file["licenses"]["allow"].as_array().expect("a list").iter();
    let exceptions = file["licenses"]["exceptions"].as_array().expect("a list").iter();
    let text = |value: &toml::Value| value.as_str().expect("a text").to_owned();
    let exceptions = exceptions.flat_map(|exception| {
        let allowed = exception["allow"].as_array().expect("a list").iter();
        allowed.map(|licence| (text(&exception["crate"]), text(licence)))
    });
    Lists {
        exceptions: exceptions.collect(),
        licences: licences.map(|id| id.as_str().expect("a licence").to_owned()).collect(),
        skipped: specs("skip"),
        banned: specs("deny"),
    }
}

/// Every package of every platform.
fn locked() -> Vec<Package> {
    let file = table("Cargo.lock");
    let packages = file["package"].as_array().expect("Cargo.lock lists packages").iter();
    let field = |package: &toml::Value, key: &str| {
        package.get(key).and_then(toml::Value::as_str).map(str::to_owned)
    };
    packages
        .map(|package| Package {
            name: field(package, "name").expect("a package has a name"),
            version: field(package, "version").expect("a package has a version"),
            source: field(package, "source"),
            licence: None,
        })
        .collect()
}

/// Every package that is built here, and the names of the workspace's own.
fn built() -> (Vec<Package>, BTreeSet<String>) {
    let cargo = || Command::new(env!("CARGO"));
    let version = cargo().arg("-vV").output().expect("cargo runs").stdout;
    let version = String::from_utf8(version).expect("cargo prints text");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo's host");
    let metadata = cargo()
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", host])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).expect("cargo prints JSON");
    let own: BTreeSet<&str> = metadata["workspace_members"]
        .as_array()
        .expect("a workspace has members")
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let field = |package: &serde_json::Value, key: &str| package[key].as_str().map(str::to_owned);
    let names = packages
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| own.contains(id)))
        .filter_map(|package| field(package, "name"));
    let all = packages.iter().map(|package| Package {
        name: field(package, "name").expect("a package has a name"),
        version: field(package, "version").expect("a package has a version"),
        source: field(package, "source"),
        licence: field(package, "license"),
    });
    (all.collect(), names.collect())
}

/// Whether an SPDX expression, or the older form with `/` for OR, can be met by `allowed` alone.
///
/// # Errors
/// What is wrong with the expression.
fn permits(expression: &str, allowed: &[&str]) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    let value = any_of(&mut tokens, allowed)?;
    match tokens.next() {
        None => Ok(value),
        Some(token) => Err(format!("`{token}` is not expected in `{expression}`")),
    }
}

type Tokens<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(tokens: &mut Tokens<'_>, allowed: &[&str]) -> Result<bool, String> {
    let mut value = all_of(tokens, allowed)?;
    while tokens.next_if_eq(&"OR").is_some() {
        value |= all_of(tokens, allowed)?;
    }
    Ok(value)
}

fn all_of(tokens: &mut Tokens<'_>, allowed: &[&str]) -> Result<bool, String> {
    let mut value = one(tokens, allowed)?;
    while tokens.next_if_eq(&"AND").is_some() {
        value &= one(tokens, allowed)?;
    }
    Ok(value)
}

fn one(tokens: &mut Tokens<'_>, allowed: &[&str]) -> Result<bool, String> {
    match tokens.next() {
        Some("(") => {
            let value = any_of(tokens, allowed)?;
            tokens.next_if_eq(&")").map(|_| value).ok_or_else(|| "a bracket is open".to_owned())
        }
        None | Some(")" | "OR" | "AND" | "WITH") => Err("a licence is missing".to_owned()),
        Some(id) if tokens.next_if_eq(&"WITH").is_some() => {
            // An exception changes the licence, so it is allowed only where it is listed as such.
            let exception = tokens.next().ok_or_else(|| "an exception is missing".to_owned())?;
            Ok(allowed.contains(&format!("{id} WITH {exception}").as_str()))
        }
        Some(id) => Ok(allowed.contains(&id)),
    }
}

/// Packages whose licence is not allowed, and allowed licences that no package needs.
fn licence_findings(
    packages: &[Package],
    allowed: &[&str],
    exceptions: &[(String, String)],
) -> Vec<String> {
    let refused = |package: &Package, allowed: &[&str]| {
        let Some(licence) = &package.licence else { return Some("no licence is given".to_owned()) };
        let own = exceptions.iter().filter(|(name, _)| *name == package.name);
        let allowed: Vec<&str> =
            allowed.iter().copied().chain(own.map(|(_, id)| id.as_str())).collect();
        match permits(licence, &allowed) {
            Ok(true) => None,
            Ok(false) => Some(format!("`{licence}` is not allowed")),
            Err(error) => Some(error),
        }
    };
    let named = packages.iter().filter_map(|package| {
        Some(format!("{} {}: {}", package.name, package.version, refused(package, allowed)?))
    });
    let needless = allowed.iter().filter(|id| {
        let others: Vec<&str> = allowed.iter().copied().filter(|other| other != *id).collect();
        packages.iter().all(|package| refused(package, &others).is_none())
    });
    let stale = exceptions.iter().filter(|(name, id)| {
        let needs = |package: &&Package| package.licence.as_deref().is_some_and(|l| l.contains(id));
        !packages.iter().filter(needs).any(|package| package.name == *name)
    });
    let stale =
        stale.map(|(name, id)| format!("{name} is excepted for {id}, but does not need it"));
    named
        .chain(needless.map(|id| format!("{id} is allowed, but nothing needs it")))
        .chain(stale)
        .collect()
}

/// Packages from anywhere but crates.io and the workspace.
fn source_findings(packages: &[Package], own: &BTreeSet<String>) -> Vec<String> {
    let stray = packages.iter().filter(|package| match &package.source {
        Some(source) => source != CRATES_IO,
        None => !own.contains(&package.name),
    });
    stray.map(|package| format!("{} comes from {:?}", package.name, package.source)).collect()
}

/// Packages that are banned.
fn ban_findings(packages: &[Package], banned: &[Spec]) -> Vec<String> {
    let found = packages.iter().filter(|package| banned.iter().any(|spec| spec.matches(package)));
    found.map(|package| format!("{} {} is banned", package.name, package.version)).collect()
}

/// Second versions that are not listed, and listed ones that are gone.
fn duplicate_findings(packages: &[Package], skipped: &[Spec]) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(package);
    }
    let surplus = |all: &Vec<&Package>| {
        let unlisted = |package: &&&Package| !skipped.iter().any(|spec| spec.matches(package));
        all.iter().filter(unlisted).count() > 1
    };
    let double = versions.iter().filter(|(_, all)| surplus(all));
    let double = double.map(|(name, all)| {
        let all: Vec<&str> = all.iter().map(|package| package.version.as_str()).collect();
        format!("{name} is there as {}", all.join(" and "))
    });
    let stale = skipped.iter().filter(|spec| {
        let several = versions.get(spec.name.as_str()).is_some_and(|all| all.len() > 1);
        !several || !packages.iter().any(|package| spec.matches(package))
    });
    double.chain(stale.map(|spec| format!("{spec:?} is skipped, but no duplicate"))).collect()
}

fn none(found: &[String]) {
    assert!(found.is_empty(), "{} refused:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_licence_is_one_that_deny_toml_allows() {
    let (packages, _) = built();
    assert!(packages.len() > 2, "cargo lists no dependency");
    let lists = lists();
    let allowed: Vec<&str> = lists.licences.iter().map(String::as_str).collect();
    none(&licence_findings(&packages, &allowed, &lists.exceptions));
}

#[test]
fn every_package_comes_from_crates_io() {
    let (packages, own) = built();
    none(&source_findings(&packages, &own));
    none(&source_findings(&locked(), &own));
}

#[test]
fn nothing_banned_and_no_unlisted_duplicate_is_locked() {
    let (packages, lists) = (locked(), lists());
    none(&ban_findings(&packages, &lists.banned));
    none(&duplicate_findings(&packages, &lists.skipped));
}

#[test]
fn licence_expressions_are_read_as_spdx_reads_them() {
    let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"];
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only/MIT", true),
        ("Apache-2.0 / MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("MIT AND Zlib", true),
        ("MIT OR Zlib AND GPL-3.0-only", true),
        ("(MIT OR Zlib) AND GPL-3.0-only", false),
        ("(GPL-3.0-only OR MIT) AND (Zlib)", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("MIT WITH LLVM-exception", false),
    ] {
        assert_eq!(permits(expression, &allowed), Ok(expected), "{expression}");
    }
    for broken in ["", "MIT OR", "(MIT", "MIT)", "MIT Zlib", "AND MIT", "MIT WITH"] {
        assert!(permits(broken, &allowed).is_err(), "{broken}");
    }
}

#[test]
fn what_deny_toml_forbids_is_found() {
    let package =
        |name: &str, version: &str, source: Option<&str>, licence: Option<&str>| Package {
            name: name.to_owned(),
            version: version.to_owned(),
            source: source.map(str::to_owned),
            licence: licence.map(str::to_owned),
        };
    let good = package("a", "1.2.3", Some(CRATES_IO), Some("MIT"));
    let check = |packages: &[Package]| licence_findings(packages, &["MIT"], &[]);
    assert_eq!(check(std::slice::from_ref(&good)), [""; 0]);
    for licence in [Some("GPL-3.0-only"), Some("MIT AND"), None] {
        let bad = package("b", "1.0.0", Some(CRATES_IO), licence);
        assert_eq!(check(&[good.clone(), bad]).len(), 1, "{licence:?}");
    }
    let unneeded = licence_findings(std::slice::from_ref(&good), &["MIT", "Zlib"], &[]);
    assert_eq!(unneeded, ["Zlib is allowed, but nothing needs it"]);
    let excepted = |name: &str| {
        let special = package("b", "1.0.0", Some(CRATES_IO), Some("MPL-2.0"));
        let exceptions = [(name.to_owned(), "MPL-2.0".to_owned())];
        licence_findings(&[good.clone(), special], &["MIT"], &exceptions)
    };
    assert_eq!(excepted("b"), [""; 0]);
    assert_eq!(excepted("a").len(), 2, "for another crate: not allowed, and not needed");

    let own = BTreeSet::from(["own".to_owned()]);
    let git = package("b", "1.0.0", Some("git+https://example.org/b#0"), None);
    let path = package("c", "1.0.0", None, None);
    let member = package("own", "1.0.0", None, None);
    assert_eq!(source_findings(&[good.clone(), git, path, member], &own).len(), 2);

    for (spec, hit) in
        [("a", true), ("a:1", true), ("a:1.2", true), ("a:1.20", false), ("b", false)]
    {
        let banned = ban_findings(std::slice::from_ref(&good), &[Spec::parse(spec)]);
        assert_eq!(!banned.is_empty(), hit, "{spec}");
    }

    let second = package("a", "2.0.0", Some(CRATES_IO), None);
    let both = [good.clone(), second];
    assert_eq!(duplicate_findings(&both, &[]), ["a is there as 1.2.3 and 2.0.0"]);
    assert_eq!(duplicate_findings(&both, &[Spec::parse("a:1")]), [""; 0]);
    assert_eq!(duplicate_findings(&[good], &[Spec::parse("a:1")]).len(), 1);
    assert_eq!(duplicate_findings(&both, &[Spec::parse("a:1"), Spec::parse("a:3")]).len(), 1);
}
