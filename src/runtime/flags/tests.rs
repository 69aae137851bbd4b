//! The command line, the environment and the configuration file.

use super::known::{FLAGS, Takes};
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
        (&["--max-concurrent-streams", "-1"], "out of the numbers"),
        (&["--max-request-bytes", "0"], "at least 1"),
        (&["--auto-compaction-retention=1.5"], "30m"),
        (&["--auto-compaction-retention=-1h"], "below 0"),
        (&["--watch-progress-notify-interval="], "1h30m"),
        (&["gateway", "start"], "not part of quoin"),
        (&["grpc-proxy", "start"], "not part of quoin"),
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

#[test]
fn values_that_etcd_takes_start_the_server_and_those_beyond_its_range_are_told() {
    for (flag, told) in [
        ("--snapshot-count=0", None),
        ("--max-txn-ops=0", None),
        ("--max-txn-ops=0x10", None),
        ("--max-concurrent-streams=0", None),
        ("--max-concurrent-streams=4294967295", None),
        ("--max-concurrent-streams=10000", Some("to 4096")),
        ("--watch-progress-notify-interval=0", None),
        ("--watch-progress-notify-interval=-1s", None),
        ("--watch-progress-notify-interval=1ms", Some("to 100ms")),
        ("--auto-compaction-retention=1.5h", None),
        ("--auto-compaction-retention=100ms", Some("to a second")),
        ("--max-request-bytes=134217728", Some("to 67108864")),
        (
            "--quota-backend-bytes=9000000000000",
            Some("to 549755813888"),
        ),
        ("--warning-apply-duration=-1s", None),
    ] {
        let of_flag = config(&[flag]);
        // The same in a file, where a number has no quotes and a duration may be a text.
        let (name, value) = flag.trim_start_matches('-').split_once('=').unwrap();
        let text = format!("{name}: {value}");
        let args = ["--config-file=c".to_owned()];
        let Ok(Command::Serve(of_file)) = parse(args, &[], |_| Ok(text.clone())) else {
            panic!("{text}");
        };
        let told_file = &of_file.notices[1..];
        assert_eq!(of_flag.notices, told_file, "{flag}");
        match told {
            None => assert_eq!(notices(&of_flag), [], "{flag}"),
            Some(text) => {
                let [(level, said)] = notices(&of_flag)[..] else {
                    panic!("{flag}: {:?}", of_flag.notices);
                };
                assert!(level == Level::Warn && said.contains(text), "{said}");
                assert!(said.contains(name), "{said}");
            }
        }
        let (mut of_flag, mut of_file) = (of_flag, *of_file);
        of_flag.notices.clear();
        of_file.notices.clear();
        assert_eq!(of_flag, of_file, "{flag}");
    }
    assert_eq!(config(&["--snapshot-count=0"]).snapshot_count, None);
    assert_eq!(config(&["--max-txn-ops=0"]).txn_ops_max, 0);
    let streams = |given: &str| config(&["--max-concurrent-streams", given]).streams_max;
    assert_eq!(
        (streams("0"), streams("7"), streams("9999")),
        (4096, 7, 4096)
    );
    let progress = |given: &str| config(&["--watch-progress-notify-interval", given]);
    let progress = |given: &str| progress(given).watch_progress_ms;
    assert_eq!((progress("0"), progress("1ms")), (600_000, 100));
    let huge = config(&["--quota-backend-bytes=9000000000000"]);
    assert_eq!(huge.quota_bytes, Some(limits::QUOTA_BYTES_CEILING));
    let long = config(&["--max-request-bytes=134217728"]);
    assert_eq!(long.request_bytes_max, limits::REQUEST_BYTES_CEILING);
}

/// Texts that etcd refuses if they are empty, and quoin too.
const NEVER_EMPTY: &[&str] = &["name", "auto-compaction-mode", "log-outputs"];

#[test]
fn an_empty_value_says_as_much_as_leaving_the_flag_out_where_etcd_takes_it() {
    let mut without = config(&[]);
    without.notices.clear();
    for flag in FLAGS.iter().filter(|flag| flag.is_setting()) {
        let typed = !matches!(flag.takes, Takes::Text | Takes::List);
        let own = ["cores", "fronts"].contains(&flag.name);
        let refuses = typed || own || NEVER_EMPTY.contains(&flag.name);
        match given(&[&format!("--{}=", flag.name)], &[]) {
            Err(error) => assert!(refuses && !error.0.is_empty(), "--{}: {error}", flag.name),
            Ok(Command::Serve(mut config)) => {
                assert!(!refuses, "--{} is taken", flag.name);
                config.notices.clear();
                // The empty token is a token of its own, in etcd as well.
                if flag.name == "initial-cluster-token" {
                    assert_eq!(config.cluster_token, "");
                    config.cluster_token.clone_from(&without.cluster_token);
                }
                assert_eq!(*config, without, "--{}", flag.name);
            }
            other => panic!("--{}: {other:?}", flag.name),
        }
        // An empty variable is none, whatever it stands for.
        let variable = super::variable_of(flag.name);
        let Ok(Command::Serve(config)) = given(&[], &[(&variable, "")]) else {
            panic!("{variable} is refused");
        };
        assert_eq!(*config, without, "{variable}");
    }
}

#[test]
fn sections_of_a_configuration_file_are_the_flags_that_they_stand_for() {
    let of_file = |text: &str| {
        let args = ["--config-file=c".to_owned()];
        parse(args, &[], |_| Ok(text.to_owned()))
    };
    let Ok(Command::Serve(shared)) = of_file("socket-options: {reuse-port: true}") else {
        panic!("it is refused");
    };
    assert!(shared.reuse_port);
    for text in [
        "discovery-config: {token: x}",
        "discovery-config: {endpoints: ['http://127.0.0.1:1'], token: x}",
    ] {
        let refused = of_file(text).unwrap_err();
        assert!(refused.0.contains("clusters of several"), "{refused}");
    }
    let Ok(Command::Serve(none)) = of_file("discovery-config: {token: '', secure: {}}") else {
        panic!("it is refused");
    };
    assert!(notices(&none)[1].1.contains("'discovery-config.secure'"));
}
