//! The server's settings: config.toml is what the program does without it, variables override it,
//! and what is wrong is said in one line.

use crate::support::repository;
use anyhow::{Context, Result, ensure};
use darkroom::config::{
    Blobs, JobSettings, LimitSettings, MemorySettings, ModelSettings, OutboundSettings,
    SchedulerSettings, ServerSettings, Settings, StoreSettings, TlsMode, TlsSettings,
    units::{parse_duration, parse_size, show_duration, show_size},
};
use std::{collections::BTreeSet, fs, time::Duration};

/// Every key as in a variable's name, with a value that is not the default: as a variable, and as
/// the file has it.
const OTHERS: &[(&str, &str, &str)] = &[
    ("SERVER__BIND", "[::1]:9000", r#""[::1]:9000""#),
    ("SERVER__MAX_BODY", "100MB", r#""100MB""#),
    ("SERVER__MAX_CONNECTIONS", "17", "17"),
    ("SERVER__HEADER_TIMEOUT", "500ms", r#""500ms""#),
    ("SERVER__IDLE_TIMEOUT", "2m", r#""2m""#),
    ("SERVER__DRAIN", "0s", r#""0s""#),
    ("SERVER__HOSTS", r#"["Pictures.Example", "nas"]"#, r#"["Pictures.Example", "nas"]"#),
    ("SERVER__TLS__MODE", "files", r#""files""#),
    ("SERVER__TLS__CERTIFICATE", "tls/chain.pem", r#""tls/chain.pem""#),
    ("SERVER__TLS__KEY", "tls/key.pem", r#""tls/key.pem""#),
    ("STORE__PATH", "elsewhere", r#""elsewhere""#),
    ("STORE__BLOBS", "sled", r#""sled""#),
    ("MODEL__NAME", "flux1-kontext-dev", r#""flux1-kontext-dev""#),
    ("MODEL__DEVICE", r#"["cuda:1", "cuda:0"]"#, r#"["cuda:1", "cuda:0"]"#),
    ("MODEL__DTYPE", "bf16", r#""bf16""#),
    ("SCHEDULER__JOBS", "2", "2"),
    ("SCHEDULER__JOBS_PER_USER", "1", "1"),
    ("SCHEDULER__TOKENS", "4096", "0x1000"),
    ("MEMORY__BUDGET", "6GiB", r#""6GiB""#),
    ("SCHEDULER__MEMORY", "3GiB", r#""3GiB""#),
    ("SCHEDULER__QUEUE", "1000", "1_000"),
    ("SCHEDULER__PATIENCE", "90s", r#""90s""#),
    ("JOBS__KEEP", "7d", r#""7d""#),
    ("JOBS__EPHEMERAL", "1h", r#""1h""#),
    ("LIMITS__INPUT_MEMORY", "16777216", "16777216"),
    ("LIMITS__MAX_PIXELS", "1000000", "1_000_000"),
    ("LIMITS__MAX_SIDE", "4000", "4000"),
    ("LIMITS__IMAGES", "3", "3"),
    ("WEBHOOKS__ALLOW_HOSTS", "['hooks.example:8443']", "['hooks.example:8443']"),
    ("FETCH__ALLOW_HOSTS", "[\n 'pictures.example',\n]", "[\n 'pictures.example',\n]"),
];

/// What [`OTHERS`] say. Every field is named, so that a new one is missed here.
fn others() -> Result<Settings> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Ok(Settings {
        server: ServerSettings {
            bind: "[::1]:9000".parse()?,
            max_body: 100_000_000,
            max_connections: 17,
            header_timeout: Duration::from_millis(500),
            idle_timeout: Duration::from_secs(120),
            drain: Duration::ZERO,
            hosts: names(&["pictures.example", "nas"]),
            tls: TlsSettings {
                mode: TlsMode::Files,
                certificate: "tls/chain.pem".into(),
                key: "tls/key.pem".into(),
            },
        },
        store: StoreSettings { path: "elsewhere".into(), blobs: Blobs::Sled },
        model: ModelSettings {
            name: "flux1-kontext-dev".to_owned(),
            devices: names(&["cuda:1", "cuda:0"]),
            dtype: "bf16".to_owned(),
        },
        memory: MemorySettings { budget: Some(6 << 30) },
        scheduler: SchedulerSettings {
            jobs: 2,
            jobs_per_user: 1,
            tokens: 4096,
            memory: Some(3 << 30),
            queue: 1000,
            patience: Duration::from_secs(90),
        },
        jobs: JobSettings {
            keep: Duration::from_secs(7 * 24 * 3600),
            ephemeral: Duration::from_secs(3600),
        },
        limits: LimitSettings {
            input_memory: 16 << 20,
            max_pixels: 1_000_000,
            max_side: 4000,
            images: 3,
        },
        webhooks: OutboundSettings { allow_hosts: names(&["hooks.example:8443"]) },
        fetch: OutboundSettings { allow_hosts: names(&["pictures.example"]) },
    })
}

/// `SERVER__MAX_BODY` as a dotted key.
fn dotted(name: &str) -> String {
    name.replace("__", ".").to_lowercase()
}

fn variable(name: &str, value: &str) -> (String, String) {
    (format!("DARKROOM__{name}"), value.to_owned())
}

/// The dotted names of a table's values.
fn leaves(section: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => leaves(&format!("{section}{key}."), inner, found),
            _ => assert!(found.insert(format!("{section}{key}"))),
        }
    }
}

/// The settings of a file with that text.
fn load(text: &str, env: &[(String, String)]) -> Result<Settings> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.toml");
    fs::write(&path, text)?;
    Ok(Settings::load(Some(&path), env.iter().cloned())?)
}

/// What is wrong with them, without the folder of the file.
fn error(text: &str, env: &[(String, String)]) -> Result<String> {
    let error = load(text, env).err().context("it was accepted")?.to_string();
    Ok(error.split_once("/config.toml: ").map_or(&*error, |(_, reason)| reason).to_owned())
}

#[test]
fn config_toml_says_the_defaults_and_every_key_with_a_comment() -> Result<()> {
    let path = repository("config.toml");
    ensure!(Settings::load(Some(&path), [])? == Settings::default());
    ensure!(load("", &[])? == Settings::default());
    ensure!(Settings::load(None, [])? == Settings::default(), "found in the working folder");
    let text = fs::read_to_string(&path)?;
    let mut written = BTreeSet::new();
    leaves("", &text.parse()?, &mut written);
    let known: BTreeSet<String> = OTHERS.iter().map(|(name, ..)| dotted(name)).collect();
    ensure!(written == known, "{:?}", written.symmetric_difference(&known));
    let lines: Vec<&str> = text.lines().collect();
    let is_key = |line: &str| line.contains(" = ") && !line.starts_with('#');
    let keys: Vec<_> = lines.windows(2).filter(|pair| is_key(pair[1])).collect();
    ensure!(keys.len() == OTHERS.len(), "{} keys", keys.len());
    ensure!(keys.iter().all(|pair| pair[0].starts_with("# ")), "a key without a comment");
    Ok(())
}

#[test]
fn every_key_is_read_from_the_file_and_from_its_variable() -> Result<()> {
    let text: String =
        OTHERS.iter().map(|(name, _, value)| format!("{} = {value}\n", dotted(name))).collect();
    let env: Vec<_> = OTHERS.iter().map(|(name, value, _)| variable(name, value)).collect();
    ensure!(load(&text, &[])? == others()?);
    ensure!(load("", &env)? == others()?);
    // Alone each changes something, so none is set by another's key.
    for (name, value, _) in OTHERS.iter().filter(|(name, ..)| !name.starts_with("SERVER__TLS")) {
        ensure!(load("", &[variable(name, value)])? != Settings::default(), "{name}");
    }
    Ok(())
}

#[test]
fn a_variable_overrides_the_file_and_the_file_the_default() -> Result<()> {
    let text = "[scheduler]\njobs = 3\nqueue = 5\n[server]\nhosts = [\"a\", \"b\"]\n";
    let env = [variable("SCHEDULER__JOBS", "7"), variable("SERVER__HOSTS", "[\"c\"]")];
    let settings = load(text, &env)?;
    ensure!(settings.scheduler.jobs == 7, "the variable's");
    ensure!(settings.scheduler.queue == 5, "the file's");
    ensure!(settings.scheduler.tokens == 65_536, "the default");
    ensure!(settings.server.hosts == ["c"], "a list is replaced and not joined");

    // What must fit together is judged by what came out at the end.
    let tls = "[server.tls]\nmode = \"files\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n";
    let empty = ["CERTIFICATE", "KEY"].map(|key| variable(&format!("SERVER__TLS__{key}"), ""));
    let off = [&[variable("SERVER__TLS__MODE", "off")], &empty[..]].concat();
    ensure!(load(tls, &off)?.server.tls == TlsSettings::default());
    Ok(())
}

#[test]
fn variables_of_others_are_left_alone_and_unknown_ones_of_ours_are_not() -> Result<()> {
    let others = ["DARKROOM_LOG", "DARKROOM", "darkroom__server__bind", "PATH", "XDARKROOM__A"];
    let others = others.map(|name| (name.to_owned(), "nonsense".to_owned()));
    ensure!(load("", &others)? == Settings::default());
    for (name, meant) in [
        ("SERVER__BNID", "DARKROOM__SERVER__BIND"),
        ("SERVER_BIND", "DARKROOM__SERVER__BIND"),
        ("server__bind", "DARKROOM__SERVER__BIND"),
        ("SCHEDULER__KEEP", "DARKROOM__JOBS__KEEP"),
        (
            "HOOKS__ALLOW_HOSTS",
            "one of DARKROOM__WEBHOOKS__ALLOW_HOSTS, DARKROOM__FETCH__ALLOW_HOSTS",
        ),
        (
            "MODEL__TEMPERATURE",
            "one of DARKROOM__MODEL__NAME, DARKROOM__MODEL__DEVICE, DARKROOM__MODEL__DTYPE",
        ),
    ] {
        let said = error("", &[variable(name, "x")])?;
        let expected = format!("DARKROOM__{name}: not a known variable, did you mean {meant}?");
        ensure!(said == expected, "{said}");
    }
    let said = error("", &[variable("", "x")])?;
    ensure!(OTHERS.iter().all(|(name, ..)| said.contains(name)), "far from all keys: {said}");
    Ok(())
}

#[test]
fn a_wrong_value_is_said_with_its_key_and_what_is_allowed() -> Result<()> {
    let address = r#"an IP address and a port, such as "127.0.0.1:8484""#;
    let loopback = "a loopback address such as \"127.0.0.1:8484\", because there are no accounts \
                    yet and everyone who reached the server could use it";
    let body = r#"a size such as "64MiB", from 1KiB to 1GiB"#;
    let timeout = r#"a duration such as "30s", from 100ms to 1h"#;
    let hosts = r#"an array of host names without port, such as ["pictures.example"]"#;
    let targets = "an array of host names with or without port, such as [\"hooks.example\", \
                   \"hooks.example:8443\"]";
    let folder = "the path of a folder, not empty and without control characters";
    let model = "a model's name or folder, not empty and without control characters";
    let device =
        r#""auto", "cpu", "cuda:N" or "metal", or an array of "cpu" or of different "cuda:N""#;
    for (assignment, expected) in [
        (r#"server.bind = "localhost:8484""#, address),
        (r#"server.bind = "127.0.0.1""#, address),
        ("server.bind = 8484", address),
        (r#"server.bind = "0.0.0.0:8484""#, loopback),
        (r#"server.bind = "[::]:8484""#, loopback),
        (r#"server.bind = "192.168.1.2:8484""#, loopback),
        (r#"server.max_body = "64 MiB""#, body),
        (r#"server.max_body = "1.5MiB""#, body),
        (r#"server.max_body = "2GiB""#, body),
        (r#"server.max_body = "99999999999TiB""#, body),
        ("server.max_body = 1023", body),
        ("server.max_body = -1", body),
        ("server.max_body = 1.5", body),
        ("server.max_connections = 0", "a whole number from 1 to 100000"),
        (r#"server.max_connections = "4096""#, "a whole number from 1 to 100000"),
        ("server.max_connections = true", "a whole number from 1 to 100000"),
        ("server.header_timeout = 10", timeout),
        (r#"server.header_timeout = "10""#, timeout),
        (r#"server.idle_timeout = "0s""#, timeout),
        (r#"server.drain = "2h""#, r#"a duration such as "30s", of at most 1h"#),
        (r#"server.hosts = "nas""#, hosts),
        (r#"server.hosts = ["nas:8484"]"#, hosts),
        (r#"server.hosts = ["https://nas"]"#, hosts),
        (r#"server.hosts = ["*.example"]"#, hosts),
        (r#"server.hosts = ["nas", ""]"#, hosts),
        (r#"server.hosts = ["nas", 5]"#, hosts),
        (r#"server.tls.mode = "on""#, r#"one of "off", "self-signed", "files""#),
        ("server.tls.key = false", "the path of a PEM file, without control characters"),
        (r#"store.path = """#, folder),
        (r#"store.blobs = "Sled""#, r#"one of "files", "sled""#),
        (r#"model.name = """#, model),
        (r#"model.device = "cuda""#, device),
        (r#"model.device = ["cuda:x"]"#, device),
        ("model.device = []", device),
        (r#"model.device = ["cpu", "cuda:0"]"#, device),
        (r#"model.device = ["cuda:0", "cuda:0"]"#, device),
        (r#"model.dtype = "int4""#, r#"one of "auto", "f32", "bf16", "f16", "int8""#),
        ("scheduler.jobs = 65", "a whole number from 1 to 64"),
        ("scheduler.jobs_per_user = 0", "a whole number from 1 to 64"),
        ("scheduler.tokens = 255", "a whole number from 256 to 1048576"),
        (r#"scheduler.memory = "all""#, r#""auto" or a size such as "64MiB", of at least 1MiB"#),
        ("scheduler.queue = 10001", "a whole number from 1 to 10000"),
        (r#"scheduler.patience = "25h""#, r#"a duration such as "30s", of at most 1d"#),
        (r#"jobs.keep = "366d""#, r#"a duration such as "30s", from 1m to 365d"#),
        (r#"jobs.ephemeral = "9s""#, r#"a duration such as "30s", from 10s to 1d"#),
        (r#"limits.input_memory = "1MiB""#, r#"a size such as "64MiB", of at least 16MiB"#),
        ("limits.max_pixels = 268435457", "a whole number from 1 to 268435456"),
        ("limits.max_side = 65536", "a whole number from 16 to 65535"),
        ("limits.images = 9", "a whole number from 1 to 8"),
        (r#"webhooks.allow_hosts = ["hooks.example:0"]"#, targets),
        (r#"webhooks.allow_hosts = ["hooks.example:65536"]"#, targets),
        (r#"fetch.allow_hosts = ["a:1:2"]"#, targets),
        ("server = 5", "a section, [server]"),
        ("server.tls = [1]", "a section, [server.tls]"),
        ("server.bind = { port = 1 }", address),
    ] {
        let said = error(&format!("# A comment.\n\n{assignment}\n"), &[])?;
        let (key, value) = assignment.split_once(" = ").context("key and value")?;
        ensure!(said == format!("line 3: {key} is {value}, expected {expected}"), "{said}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_its_line() -> Result<()> {
    for (text, expected) in [
        ("bnid = 1", "line 2: server.bnid is not a known key, did you mean server.bind?"),
        ("[sever]\nbind = 1", "line 3: sever.bind is not a known key, did you mean server.bind?"),
        (
            "[limits]\njobs = 1",
            "line 3: limits.jobs is not a known key, did you mean scheduler.jobs?",
        ),
        (
            "[store.disk]\nsize = 1",
            "line 3: store.disk.size is not a known key, did you mean one of store.path, \
             store.blobs?",
        ),
        ("[webhook]", "line 2: webhook is not a known key, did you mean one of server.bind, "),
        (
            "\"tls.mode\" = \"off\"",
            "line 2: server.\"tls.mode\" is not a known key, did you mean server.tls.mode?",
        ),
        ("\"bi\\nd\" = 1", "line 2: server.bi d is not a known key, did you mean server.bind?"),
        ("drain = '''\n1\n2'''", "line 2: server.drain is ''' 1 2''', expected a duration "),
        ("drain = \"1s\"\ndrain = \"2s\"", "line 3: duplicate key"),
        ("drain = ", "line 2: "),
    ] {
        let said = error(&format!("[server]\n{text}\n"), &[])?;
        ensure!(said.starts_with(expected) && !said.contains('\n'), "{said}");
    }
    let long = error(&format!("server.drain = \"{}\"", "x".repeat(100_000)), &[])?;
    ensure!(long.len() < 300, "{} bytes", long.len());
    Ok(())
}

#[test]
fn what_is_wrong_in_a_variable_is_said_with_its_name() -> Result<()> {
    for (name, value, expected) in [
        ("SERVER__BIND", "[::]:80", "server.bind is \"[::]:80\", expected a loopback address "),
        ("SERVER__HOSTS", "nas", "server.hosts is \"nas\", expected an array of host names "),
        ("SERVER__HOSTS", "[1]", "server.hosts is \"[1]\", expected an array of host names "),
        ("SERVER__DRAIN", "", "server.drain is \"\", expected a duration "),
        ("SCHEDULER__JOBS", "-1", "scheduler.jobs is \"-1\", expected a whole number from 1 to 64"),
        ("SCHEDULER__JOBS", "'1'", "scheduler.jobs is \"'1'\", expected a whole number "),
        ("STORE__PATH", "a\nb", "store.path is \"a\\nb\", expected the path "),
        ("LIMITS__MAX_SIDE", "4KiB", "limits.max_side is \"4KiB\", expected a whole number "),
    ] {
        let said = error("", &[variable(name, value)])?;
        ensure!(said.starts_with(&format!("DARKROOM__{name}: {expected}")), "{said}");
    }
    Ok(())
}

#[test]
fn a_certificate_is_named_where_it_is_used_and_nowhere_else() -> Result<()> {
    let files = [variable("SERVER__TLS__MODE", "files")];
    for (text, env, place, what) in [
        ("mode = \"files\"", &[][..], "line 2", "certificate is \"\""),
        ("mode = \"files\"\ncertificate = \"c.pem\"\nkey = \"\"", &[], "line 4", "key is \"\""),
        ("certificate = \"c.pem\"", &files, "DARKROOM__SERVER__TLS__MODE", "key is \"\""),
        ("mode = \"self-signed\"\nkey = \"k.pem\"", &[], "line 3", "key is \"k.pem\""),
        ("certificate = \"c.pem\"", &[], "line 2", "certificate is \"c.pem\""),
    ] {
        let said = error(&format!("[server.tls]\n{text}\n"), env)?;
        let expected = if what.ends_with("\"\"") { "the path of a PEM file" } else { "\"\"" };
        let expected = format!("{place}: server.tls.{what}, expected {expected}, because ");
        ensure!(said.starts_with(&expected) && said.ends_with("\"files\""), "{said}");
    }
    Ok(())
}

#[test]
fn a_file_that_is_named_must_be_there_and_be_a_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("mine.toml");
    let said = || Settings::load(Some(&path), []).err().context("accepted").map(|e| e.to_string());
    let unreadable = format!("cannot read {}: ", path.display());
    ensure!(said()?.starts_with(&unreadable), "{}", said()?);
    fs::write(&path, [b'#', 0xff])?;
    ensure!(said()?.starts_with(&unreadable), "{}", said()?);
    fs::write(&path, "#".repeat((1 << 20) + 1))?;
    ensure!(said()?.ends_with("mine.toml: it has 1048577 bytes, at most 1048576 are read"));
    Ok(())
}

#[test]
fn sizes_and_durations_are_printed_as_they_are_read() -> Result<()> {
    for (text, bytes) in [
        ("0", 0),
        ("1023", 1023),
        ("1KiB", 1024),
        ("512KiB", 512 << 10),
        ("64MiB", 64 << 20),
        ("100MB", 100_000_000),
        ("2GiB", 2 << 30),
        ("3TiB", 3 << 40),
        ("18446744073709551615", u64::MAX),
    ] {
        ensure!(parse_size(text) == Some(bytes) && show_size(bytes) == text, "{text}");
    }
    for (text, milliseconds) in
        [("0ms", 0), ("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("7d", 604_800_000)]
    {
        let duration = Duration::from_millis(milliseconds);
        ensure!(parse_duration(text) == Some(duration), "{text}");
        ensure!(show_duration(duration) == text, "{text}");
    }
    ensure!(parse_size("64000KB") == parse_size("64MB"));
    ensure!(parse_duration("24h") == parse_duration("1d"));
    ensure!(parse_duration("0s") == Some(Duration::ZERO));
    for wrong in ["", "s", "10", "-1s", "+1s", "1 s", "1S", "1.5s", "1h30m", "300000000000d", "١s"]
    {
        ensure!(parse_duration(wrong).is_none(), "{wrong}");
    }
    for wrong in ["", "MiB", "-1", "+1", "1 MiB", "1mib", "1M", "1e6", "18446744073709551616", "١"]
    {
        ensure!(parse_size(wrong).is_none(), "{wrong}");
    }
    Ok(())
}
