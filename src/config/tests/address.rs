//! Where the bus is, and what decided it.

use super::*;

#[test]
fn a_flag_overrides_the_environment_the_file_and_the_default() {
    let mut environment = nowhere();
    let config = parse("[bus]\nurl = 'data/bus'").unwrap();
    let check =
        |environment: &Environment, config: &Config, flag: Option<&str>, dir: &str, text: &str, origin: Origin| {
            let bus = resolve(environment, config, flag).unwrap();
            assert_eq!(bus.location, Location::Dir(dir.into()));
            assert_eq!(bus.to_string(), text);
            assert_eq!(bus.origin, origin);
        };
    check(
        &environment,
        &Config::default(),
        None,
        "/home/ann/.local/share/evbus",
        "/home/ann/.local/share/evbus (default)",
        Origin::Default,
    );
    let file = Origin::Config(PathBuf::from("/srv/app/evbus.toml"));
    check(&environment, &config, None, "/srv/app/data/bus", "/srv/app/data/bus (/srv/app/evbus.toml)", file);
    environment.vars.insert("EVBUS_URL".into(), "/env/bus".into());
    check(&environment, &config, None, "/env/bus", "/env/bus (EVBUS_URL)", Origin::EnvVar);
    check(&environment, &config, Some("./bus/"), "/desk/bus", "/desk/bus (--bus)", Origin::Flag);
    // An empty variable, which a script forgot to fill, must not lead to another bus.
    environment.vars.insert("EVBUS_URL".into(), "".into());
    let error = resolve(&environment, &Config::default(), None).unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.detail()),
        ("EVBUS_URL: it is empty", Some(&ConfigDetail::EmptyVariable))
    );
    environment.vars.remove(OsStr::new("EVBUS_URL"));
    environment.vars.insert("XDG_DATA_HOME".into(), "/data".into());
    check(&environment, &Config::default(), None, "/data/evbus", "/data/evbus (default)", Origin::Default);
}

#[test]
fn every_form_of_an_address_is_accepted() {
    let config = parse(FULL).unwrap();
    let table = [
        ("/mnt/bus", "/mnt/bus"),
        ("/mnt//bus/./x/", "/mnt/bus/x"),
        ("sub/bus", "/desk/sub/bus"),
        (".", "/desk"),
        ("..", "/desk/.."),
        ("~", "/home/ann"),
        ("~/bus", "/home/ann/bus"),
        ("./~/bus", "/desk/~/bus"),
        ("file:///mnt/my%20bus%2f", "/mnt/my bus"),
        ("FILE://localhost/mnt/bus", "/mnt/bus"),
        ("file:///gr%C3%BC%C3%9Fe", "/grüße"),
        ("./a://b", "/desk/a:/b"),
        ("bus", "/srv/shared bus"),
    ];
    for (text, dir) in table {
        let bus = resolve(&nowhere(), &config, Some(text)).unwrap();
        let Location::Dir(path) = bus.location else { panic!("{text} is a folder") };
        let dir = if text == "bus" { "/srv/app/../shared bus" } else { dir };
        assert_eq!(path, Path::new(dir), "{text}");
    }
    let origin = Origin::Named("bus".to_owned(), "/srv/app/evbus.toml".into());
    assert_eq!(resolve(&nowhere(), &config, Some("bus")).unwrap().origin, origin);
    assert_eq!(resolve(&nowhere(), &config, None).unwrap().origin, origin, "[bus] url may be a name");
    assert_eq!(origin.to_string(), "bus in /srv/app/evbus.toml");
}

#[test]
fn invalid_addresses_are_refused() {
    let config = parse(FULL).unwrap();
    let table = [
        ("", "--bus: the address of the bus is empty or holds a NUL"),
        ("prdo", "--bus: no bus is named 'prdo' (did you mean 'prod'?)"),
        ("elsewhere", "--bus: no bus is named 'elsewhere' (known are bus, prod)"),
        ("s3:///p", "--bus: the s3:// URL has no bucket (write s3://bucket/prefix)"),
        ("s3://b?regoin=r", "--bus: the s3:// URL has an unknown parameter 'regoin' (did you mean 'region'?)"),
        (
            "ftp://x/y",
            "--bus: 'ftp://' is no store (known are a path, file:///path, s3://bucket, gs://bucket, az://container, postgres://host/database, sqlite:///file and https://server)",
        ),
        ("http://", "--bus: the URL of a server is https://HOST:PORT, without a password"),
        ("https://x/?token=a", "--bus: the URL of a server has no '?' part"),
        ("file://host/x", "--bus: a file:// URL names a path of this machine: file:///path"),
        ("file://localhostile/x", "--bus: a file:// URL names a path of this machine: file:///path"),
        ("file:///a?b", "--bus: the URL of a file ends with its path (write ? as %3F and # as %23)"),
        ("file:///a%2", "--bus: the URL of a file has a % that no two hex digits follow, or %00"),
        ("file:///a%00b", "--bus: the URL of a file has a % that no two hex digits follow, or %00"),
        ("file:///a%+1", "--bus: the URL of a file has a % that no two hex digits follow, or %00"),
    ];
    for (text, error) in table {
        assert_eq!(resolve(&nowhere(), &config, Some(text)).unwrap_err().to_string(), error, "{text}");
    }
    let error = resolve(&nowhere(), &Config::default(), Some("mnt")).unwrap_err();
    assert_eq!(error.to_string(), "--bus: no bus is named 'mnt' (there is no config file)");
    assert_eq!(error.detail(), Some(&ConfigDetail::TakenForName { name: "mnt".to_owned() }));
    let homeless = Environment { home: None, ..nowhere() };
    let error = resolve(&homeless, &Config::default(), None).unwrap_err();
    assert_eq!(error.to_string(), "default: no bus was named, and without HOME there is no default one");
}

#[test]
fn bad_addresses_in_the_file_have_a_line() {
    let table = [
        ("[bus]\n", "evbus.toml:1: 'bus': has no url (add url = \"/path/of/the/bus\")"),
        (
            "[bus]\nurl = 'file://x/y'",
            "evbus.toml:2: 'url' in [bus]: a file:// URL names a path of this machine: file:///path",
        ),
        ("bus = '/mnt/bus'", "evbus.toml:1: 'bus': must be a table: [bus], not a string"),
        ("[buses.a]\nurl = 'b'", "evbus.toml:1: 'a' in [buses]: its url 'b' is a name again (a path needs a '/': ./b)"),
        (
            "[buses.'a/b']\nurl = '/b'",
            "evbus.toml:1: 'a/b' in [buses]: is not a name: it would be read as a path or a URL (leave out '/', '.' and ':')",
        ),
    ];
    for (text, error) in table {
        assert_eq!(parse(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn a_server_is_a_place_of_its_own() {
    for (text, url) in [("https://bus.example", "https://bus.example/"), ("HTTP://[::1]:8787/x", "http://[::1]:8787/x")]
    {
        let bus = resolve(&nowhere(), &Config::default(), Some(text)).unwrap();
        assert_eq!((bus.location, bus.display), (Location::Server(url.to_owned()), url.to_owned()));
    }
}

#[test]
fn a_bucket_is_shown_as_it_was_written() {
    let config = parse("[bus]\nurl = \"s3://acme-events/prod?region=r\"\n").unwrap();
    let bus = resolve(&nowhere(), &config, None).unwrap();
    assert_eq!(bus.to_string(), "s3://acme-events/prod?region=r (/srv/app/evbus.toml)");
    let Location::Bucket(bucket, url) = bus.location else { panic!("it is a bucket") };
    assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("acme-events", "prod"));
    assert_eq!(url, "s3://acme-events/prod?region=r", "as handlers are to be given it");
}

#[test]
fn an_address_that_may_hold_a_secret_is_not_shown() {
    for text in [
        "s3:/AKIA:hush@acme/x",
        "gs:/hush",
        "AKIA:hush@acme",
        "S3://AKIA:hush@acme/x",
        "https://u:hush@h/b",
        "host=h password=hush",
    ] {
        let error = resolve(&nowhere(), &parse(FULL).unwrap(), Some(text)).unwrap_err();
        let all = format!("{error} {:?}", error.detail());
        assert!(!all.contains("hush"), "{text}: {all}");
    }
}
