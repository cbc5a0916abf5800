//! The Debian archive, by lines instead of versions.
//!
//! A *line* is a set of suites. What is taken from it is whatever the archive carries there today, verified by apt
//! against the archive's own signatures; what it was is recorded by the caller. The configuration is private: the host's
//! lists, pins and installed packages play no part, and nothing of the host's is changed. The archive's address and its
//! keyring come from the host's own apt configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::{paths, sh, store};

/// A line of the archive, its lists fetched.
pub(crate) struct Line {
    config: PathBuf,
    /// The sources in deb822 form.
    pub(crate) sources: PathBuf,
}

/// A package as the archive describes it.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) sha256: String,
    pub(crate) depends: Vec<String>,
}

impl Package {
    /// What is written down about a package that was used.
    pub(crate) fn record(&self) -> Value {
        json!({ "package": self.name, "version": self.version, "sha256": self.sha256 })
    }
}

impl Line {
    /// Opens a line and fetches its lists.
    pub(crate) fn open(suites: &[&str]) -> Result<Self> {
        if paths::program("apt-get").is_none() {
            bail!(
                "apt-get is missing; the images are made of Debian packages (on another distribution use a container)"
            );
        }
        let home = paths::cache()?.join("apt");
        let _lock = store::lock(&home.join("lock"))?;
        for dir in ["lists/partial", "archives/partial", "empty.d"] {
            fs::create_dir_all(home.join(dir)).with_context(|| format!("cannot create {}", home.display()))?;
        }
        // apt ignores source files whose names hold other characters than these.
        let name = suites.join("_");
        let sources = home.join(format!("{name}.sources"));
        fs::write(&sources, render_sources(suites)?).context("cannot write the sources")?;
        let status = home.join("status");
        fs::write(&status, "").context("cannot write the status")?;
        let config = home.join(format!("{name}.conf"));
        let home = home.display();
        let settings = [
            ("Dir::State", format!("{home}")),
            ("Dir::State::lists", format!("{home}/lists")),
            ("Dir::State::status", format!("{home}/status")),
            ("Dir::Cache", format!("{home}")),
            ("Dir::Cache::archives", format!("{home}/archives")),
            ("Dir::Cache::pkgcache", String::new()),
            ("Dir::Cache::srcpkgcache", String::new()),
            ("Dir::Etc", format!("{home}")),
            ("Dir::Etc::main", format!("{home}/none")),
            ("Dir::Etc::parts", format!("{home}/empty.d")),
            ("Dir::Etc::preferencesparts", format!("{home}/empty.d")),
            ("Dir::Etc::sourcelist", sources.display().to_string()),
            ("Dir::Etc::sourceparts", format!("{home}/empty.d")),
            ("APT::Get::List-Cleanup", "false".into()),
            ("APT::Sandbox::User", "root".into()),
            ("APT::Install-Recommends", "false".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
        ];
        let text: String = settings.iter().map(|(key, value)| format!("{key} \"{value}\";\n")).collect();
        fs::write(&config, text).context("cannot write the apt configuration")?;
        let line = Self { config, sources };
        sh::quiet(line.tool("apt-get").args(["update", "-qq"]))?;
        Ok(line)
    }

    /// Names of packages that begin so.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = sh::output(self.tool("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// The package's newest version in this line.
    pub(crate) fn newest(&self, name: &str) -> Result<Package> {
        self.find(name, |_| true)
    }

    /// The package's newest version in this line for which the condition holds.
    pub(crate) fn find(&self, name: &str, accept: impl Fn(&str) -> bool) -> Result<Package> {
        let madison = sh::output(self.tool("apt-cache").args(["madison", name]))?;
        let versions = madison.lines().filter_map(|row| row.split('|').nth(1)).map(str::trim);
        let Some(version) = versions.filter(|version| accept(version)).reduce(newer) else {
            bail!("the archive has no fitting {name} in {}", self.sources.display());
        };
        let text =
            sh::output(self.tool("apt-cache").args(["show", "--no-all-versions", &format!("{name}={version}")]))?;
        let field = |wanted: &str| {
            let found = text.lines().find_map(|row| row.strip_prefix(wanted)?.strip_prefix(": "));
            found.with_context(|| format!("{name} {version} has no field {wanted}"))
        };
        let depends = field("Depends").unwrap_or_default();
        Ok(Package {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: field("SHA256")?.to_owned(),
            depends: depends.split([',', '|']).filter_map(|d| d.split_whitespace().next()).map(str::to_owned).collect(),
        })
    }

    /// Downloads packages, has apt verify them, and unpacks them into a folder without installing them.
    pub(crate) fn unpack(&self, packages: &[Package], into: &Path) -> Result<()> {
        let scratch = store::scratch("debs")?;
        let wanted = packages.iter().map(|package| format!("{}={}", package.name, package.version));
        sh::quiet(self.tool("apt-get").args(["download", "-qq"]).args(wanted).current_dir(scratch.path()))?;
        unpack_all(scratch.path(), into)
    }

    /// Like `unpack`, with all dependencies that the host has not installed, preferably from the given suite.
    pub(crate) fn unpack_with_missing(&self, package: &Package, suite: &str, into: &Path) -> Result<()> {
        let scratch = store::scratch("debs")?;
        fs::create_dir_all(scratch.path().join("partial")).context("cannot create a folder for packages")?;
        let mut apt = self.tool("apt-get");
        apt.args(["install", "--download-only", "-y", "-qq", "--no-install-recommends"]);
        apt.args(["-o", "Dir::State::status=/var/lib/dpkg/status", "-o", "Debug::NoLocking=true", "-o"]);
        apt.arg(format!("Dir::Cache::archives={}", scratch.path().display()));
        sh::quiet(apt.args(["-t", suite]).arg(format!("{}={}", package.name, package.version)))?;
        unpack_all(scratch.path(), into)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = sh::command(name);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }
}

/// The code name of the host's own Debian release.
pub(crate) fn host_suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text.lines().find_map(|row| row.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release names no release")?.trim_matches('"').to_owned())
}

/// The newer of two Debian versions.
pub(crate) fn newer<'v>(one: &'v str, other: &'v str) -> &'v str {
    if sh::succeeds(sh::command("dpkg").args(["--compare-versions", one, "gt", other])) { one } else { other }
}

fn unpack_all(debs: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    let mut any = false;
    for item in fs::read_dir(debs).context("cannot list downloaded packages")? {
        let path = item.context("cannot list downloaded packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            sh::quiet(sh::command("dpkg-deb").arg("-x").arg(&path).arg(into))?;
            any = true;
        }
    }
    if !any {
        bail!("nothing was downloaded into {}", debs.display());
    }
    Ok(())
}

fn render_sources(suites: &[&str]) -> Result<String> {
    let host = host_archive()?;
    let mut text = String::new();
    for suite in suites {
        let uri = if suite.ends_with("-security") { &host.security } else { &host.main };
        let Some(uri) = uri.as_deref().map(|uri| uri.trim_end_matches('/')) else { continue };
        text += &format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {}\n\n", host.keyring);
    }
    Ok(text)
}

struct HostArchive {
    main: Option<String>,
    security: Option<String>,
    keyring: String,
}

/// Where the host gets its own packages from.
fn host_archive() -> Result<HostArchive> {
    let format = "$(SITE) $(REPO_URI) $(ORIGIN) $(RELEASE) $(CODENAME) $(CREATED_BY)";
    let mut indexes = sh::command("apt-get");
    indexes.args(["indextargets", "--format", format]).env("LC_ALL", "C");
    let text = sh::output(&mut indexes)?;
    let (mut main, mut security) = (None, None);
    for row in text.lines().filter(|row| row.ends_with(" Packages")) {
        let words: Vec<&str> = row.split_whitespace().collect();
        let (Some(uri), true) = (words.get(1), words.contains(&"Debian")) else { continue };
        let place = if row.contains("-security") { &mut security } else { &mut main };
        place.get_or_insert_with(|| (*uri).to_owned());
    }
    if main.is_none() {
        // Lists that were never fetched name no origin: read the configuration itself.
        let mut uris = sh::command("apt-get");
        uris.args(["indextargets", "--format", "$(REPO_URI) $(CREATED_BY)"]);
        for row in sh::output(&mut uris)?.lines().filter(|row| row.ends_with(" Packages")) {
            let uri = row.split_whitespace().next().unwrap_or_default().to_owned();
            match uri.trim_end_matches('/').rsplit('/').next() {
                Some("debian-security") => security.get_or_insert(uri),
                Some("debian") => main.get_or_insert(uri),
                _ => continue,
            };
        }
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if !Path::new(keyring).exists() {
        bail!("{keyring} is missing; install the package debian-archive-keyring");
    }
    if main.is_none() {
        bail!("the host's apt configuration names no Debian archive");
    }
    Ok(HostArchive { main, security, keyring: keyring.to_owned() })
}
