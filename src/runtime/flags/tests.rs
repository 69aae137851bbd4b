//! The command line, the environment and the configuration file.

use super::{Command, Config, FlagError, parse};
use crate::limits;
use crate::runtime::logger::{Format, Level, Output};

fn config(args: &[&str]) -> Config {
    match given(args, &[]) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{args:?}: {other:?}"),
    }
}

fn no_file(_: &str) -> std::io::Result<String> {
    Err(std::io::ErrorKind::NotFound.into())
}

fn given(args: &[&str], variables: &[(&str, &str)]) -> Result<Command, FlagError> {
    let args = args.iter().map(|a| (*a).to_owned());
    let variables: Vec<_> = variables
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    parse(args, &variables, no_file)
}

fn refusal(args: &[&str]) -> String {
    match given(args, &[]) {
        Err(e) => e.0,
        other => panic!("{args:?} was taken: {other:?}"),
    }
}

#[test]
fn no_flags_give_the_defaults_of_etcd() {
    let config = config(&[]);
    assert_eq!(config.name, "default");
    assert_eq!(config.data_dir.to_str(), Some("default.etcd"));
    assert_eq!(config.listen_client[0].to_string(), "http://localhost:2379");
    assert_eq!(config.advertise_client, config.listen_client);
    assert_eq!(config.quota_bytes, Some(limits::QUOTA_BYTES_DEFAULT));
    assert_eq!(config.election_ticks(), 10);
}

#[test]
fn every_spelling_of_a_flag_is_read() {
    for args in [
        &["--name", "a"][..],
        &["--name=a"],
        &["-name", "a"],
        &["-name=a"],
    ] {
        assert_eq!(config(args).name, "a");
    }
    let interval = config(&["--watch-progress-notify-interval", "5s"]);
    assert_eq!(interval.watch_progress_ms, 5_000);
    assert_eq!(config(&["--name", "a"]).data_dir.to_str(), Some("a.etcd"));
    assert_eq!(
        config(&["--cores", "0-2,5,1"]).cores,
        Some(vec![0, 1, 2, 5])
    );
    assert_eq!(config(&["--quota-backend-bytes=-1"]).quota_bytes, None);
    assert_eq!(given(&["--version"], &[]), Ok(Command::Version));
    assert_eq!(given(&["-h"], &[]), Ok(Command::Help));
    let six = config(&["--listen-client-urls", "http://[::1]:0,http://127.0.0.1:1/"]);
    assert!(
        six.listen_client[0]
            .to_string()
            .starts_with("http://[::1]:")
    );
    assert_eq!(six.listen_client[1].port(), Some(1));
}

/// What the log would tell: grave or not, and the text.
fn notices(config: &Config) -> Vec<(Level, &str)> {
    let notices = config.notices.iter();
    notices
        .map(|notice| (notice.level, &*notice.text))
        .collect()
}

#[test]
fn flags_that_ask_for_nothing_are_taken_and_named_once() {
    let config = config(&[
        "--pre-vote",
        "--max-wals",
        "5",
        "--logger=zap",
        "--max-wals=6",
        "--name",
        "a",
    ]);
    let told = notices(&config);
    assert_eq!(told.len(), 3, "{told:?}");
    for (name, (level, text)) in ["pre-vote", "max-wals", "logger"].iter().zip(told) {
        assert!(
            level == Level::Info && text.starts_with(&format!("--{name} ")),
            "{text}"
        );
    }
    assert_eq!(config.name, "a");
    assert!(refusal(&["--max-wals"]).contains("needs a value"));
    assert!(refusal(&["--pre-vote=perhaps"]).contains("true or false"));
    assert!(refusal(&["--raft-read-timeout", "5"]).contains("duration"));
}

#[test]
fn wishes_that_are_not_met_are_warned_of() {
    let config = config(&[
        "--enable-pprof",
        "--memory-mlock=false",
        "--unsafe-no-fsync",
    ]);
    let told = notices(&config);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].0 == Level::Warn && told[0].1.contains("--enable-pprof"));
    assert!(told[1].0 == Level::Info && told[1].1.contains("--unsafe-no-fsync"));
}

#[test]
fn the_environment_says_what_the_command_line_leaves_open() {
    let variables = [
        ("ETCD_NAME", "of-the-environment"),
        ("ETCD_MAX_TXN_OPS", "77"),
        ("ETCD_DATA_DIR", ""),
        ("ETCD_PRE_VOTE", "false"),
        ("ETCD_SERVICE_HOST", "10.0.0.1"),
        ("ETCD_VERSION", "3.7"),
        ("HOME", "/root"),
    ];
    let Ok(Command::Serve(config)) = given(&["--name", "given"], &variables) else {
        panic!("it is refused");
    };
    assert_eq!((&*config.name, config.txn_ops_max), ("given", 77));
    assert_eq!(config.data_dir.to_str(), Some("given.etcd"));
    let told = notices(&config);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].1.contains("ETCD_SERVICE_HOST"), "{told:?}");
    let refused = given(&[], &[("ETCD_MAX_TXN_OPS", "x")]).unwrap_err();
    assert!(refused.0.starts_with("ETCD_MAX_TXN_OPS: "), "{refused}");
    let refused = given(&[], &[("ETCD_CERT_FILE", "x")]).unwrap_err();
    assert!(refused.0.contains("protection"), "{refused}");
}

#[test]
fn a_configuration_file_is_all_that_counts() {
    let file = |path: &str| match path {
        "of-etcd" => Ok("name: of-the-file\nheartbeat-interval: 50\nnmae: x\n".to_owned()),
        "open" => Ok("client-transport-security: {client-cert-auth: true}".to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let variables = [("ETCD_CONFIG_FILE".to_owned(), "of-etcd".to_owned())];
    let args = |args: &[&str]| args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    for (args, variables) in [
        (args(&["--name=a", "--config-file", "of-etcd"]), &[][..]),
        (args(&["--max-txn-ops", "7"]), &variables),
    ] {
        let Ok(Command::Serve(config)) = parse(args, variables, file) else {
            panic!("it is refused");
        };
        assert_eq!(config.name, "of-the-file");
        assert_eq!((config.heartbeat_ms, config.txn_ops_max), (50, 128));
        let told = notices(&config);
        assert!(
            told[1].0 == Level::Warn && told[1].1.contains("'nmae'"),
            "{told:?}"
        );
    }
    let refused = parse(args(&["--config-file=open"]), &[], file).unwrap_err();
    assert!(refused.0.contains("--client-cert-auth"), "{refused}");
    let refused = parse(args(&["--config-file=none"]), &[], file).unwrap_err();
    assert!(refused.0.contains("'none'"), "{refused}");
}

#[test]
fn a_static_pod_of_kubeadm_starts_without_tls_and_not_with_it() {
    let plain = [
        "--advertise-client-urls=http://10.0.0.5:2379",
        "--data-dir=/var/lib/etcd",
        "--feature-gates=InitialCorruptCheck=true",
        "--initial-advertise-peer-urls=http://10.0.0.5:2380",
        "--initial-cluster=node=http://10.0.0.5:2380",
        "--listen-client-urls=http://127.0.0.1:2379,http://10.0.0.5:2379",
        "--listen-metrics-urls=http://127.0.0.1:2381",
        "--listen-peer-urls=http://10.0.0.5:2380",
        "--name=node",
        "--snapshot-count=10000",
        "--watch-progress-notify-interval=5s",
        "--client-cert-auth=false",
        "--cert-file=",
    ];
    let config = config(&plain);
    assert_eq!(config.listen_metrics[0].port(), Some(2381));
    assert_eq!(config.snapshot_count, Some(10_000));
    let protected = [
        "--cert-file=/etc/kubernetes/pki/etcd/server.crt",
        "--client-cert-auth=true",
        "--key-file=/etc/kubernetes/pki/etcd/server.key",
        "--peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt",
        "--peer-client-cert-auth=true",
        "--peer-key-file=/etc/kubernetes/pki/etcd/peer.key",
        "--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
        "--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
    ];
    for flag in protected {
        let mut args = plain.to_vec();
        args.push(flag);
        let refused = refusal(&args);
        let name = flag.split('=').next().unwrap();
        assert!(
            refused.starts_with(name) && refused.contains("protection"),
            "{refused}"
        );
    }
}

#[test]
fn the_form_of_the_log_is_etcds_unless_asked_otherwise() {
    let config = |args: &[&str]| {
        let config = config(args);
        (config.log_level, config.log_format, config.log_outputs)
    };
    let plain = (Level::Info, Format::Json, vec![Output::Error]);
    assert_eq!(config(&[]), plain);
    assert_eq!(
        config(&["--log-outputs", "default,stderr,systemd/journal"]),
        plain
    );
    let other = [
        "--log-level=panic",
        "--log-format=console",
        "--log-outputs=stdout,/x",
    ];
    let outputs = vec![Output::Standard, Output::File("/x".into())];
    assert_eq!(config(&other), (Level::Fatal, Format::Console, outputs));
    assert!(refusal(&["--log-format", "xml"]).contains("json or console"));
}

#[test]
fn what_cannot_be_kept_is_refused_with_a_way_out() {
    for (args, why) in [
        (&["--data-dri", "x"][..], "did you mean --data-dir?"),
        (&["--zzzzzzzz"], "--help"),
        (&["--cert-file", "x"], "protection"),
        (&["--auth-token=jwt,pub-key=x"], "protection"),
        (&["--discovery-token", "x"], "clusters of several"),
        (&["--feature-gates", "Wrong=true"], "unrecognized"),
        (&["--listen-client-urls", "https://a:1"], "TLS"),
        (&["--listen-metrics-urls", "https://a:1"], "TLS"),
        (&["--listen-client-urls", "http://a"], "port"),
        (&["--listen-client-urls", "unixs:///x"], "TLS"),
        (&["--listen-client-urls", "unix://"], "names no Unix socket"),
        (
            &["--listen-client-urls", "unix:///run/"],
            "names no Unix socket",
        ),
        (&["--max-txn-ops", "many"], "whole number"),
        (&["--max-concurrent-streams", "0"], "at least 1"),
        (&["--name"], "needs a value"),
        (&["serve"], "not a flag"),
        (&["--election-timeout", "200"], "five times"),
        (&["--initial-cluster-state", "old"], "'existing'"),
        (
            &[
                "--initial-cluster",
                "default=http://localhost:2380,b=http://b:1",
            ],
            "several members",
        ),
        (
            &["--initial-cluster", "default=http://b:1"],
            "different URLs",
        ),
        (&["--watch-progress-notify-interval", "9ms"], "100 ms"),
        (&["--cores", "3-1"], "0-3,5"),
        (&["--cors", "example.org"], "--cors takes sites"),
    ] {
        let refused = refusal(args);
        assert!(refused.contains(why), "{args:?}: {refused}");
    }
    let two = [
        "--initial-advertise-peer-urls=http://a:1,http://b:1",
        "--initial-cluster=default=http://b:1,default=http://a:1",
    ];
    assert!(config(&two).notices.is_empty());
}
