//! The rows about gRPC: both servers are asked by one and the same client, by etcd's own load
//! tool, by h2load, which costs little of the machine beside the server, and by ours through the
//! etcd-client library.

#![forbid(unsafe_code)]

use super::clients;
use super::plan::{Candidate, Load, RowPlan, Side, benchmark, row};
use super::result::Unit;
use super::servers::Programs;
use crate::options::{Target, Workload};

/// The key that prepared messages and etcd's own tool read: one of those that are loaded.
pub const KEY: &str = "000000000000000000004711";

/// What is asked; reads come before what changes the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// A linearizable read of one key.
    Range,
    /// All keys, in one message.
    List,
    /// All keys, in messages of a stream.
    ListStream,
    /// Renewals of leases.
    KeepAlive,
    /// Watches of one key, which is written.
    FanOut,
    /// A write of one key.
    Put,
}

/// The client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// etcd's own load tool.
    Benchmark,
    /// h2load, with a prepared message.
    H2load,
    /// Ours, through the etcd-client library.
    Ours,
}

const fn grpc(
    name: &'static str,
    call: Call,
    tool: Tool,
    (connections, each): (usize, usize),
    unit: Unit,
    bar: Option<f64>,
) -> RowPlan {
    let load = Load::Grpc(call, tool, connections, each);
    row(name, Side::Etcd, load, unit, bar)
}

/// The rows. Those of etcd's own tool are named by its clients, of which many share a connection.
pub const ROWS: &[RowPlan] = {
    use Call::{FanOut, KeepAlive, Put, Range};
    use Tool::{Benchmark, H2load, Ours};
    use Unit::{Micros, Rate};
    &[
        grpc(
            "benchmark-put-1000",
            Put,
            Benchmark,
            (100, 10),
            Rate,
            Some(1.8),
        ),
        grpc("benchmark-put-64", Put, Benchmark, (64, 1), Rate, Some(1.8)),
        grpc(
            "benchmark-put-64-p99",
            Put,
            Benchmark,
            (64, 1),
            Micros,
            Some(2.0),
        ),
        grpc("benchmark-put-1", Put, Benchmark, (1, 1), Rate, Some(1.5)),
        grpc(
            "benchmark-range-64",
            Range,
            Benchmark,
            (64, 1),
            Rate,
            Some(1.3),
        ),
        grpc(
            "benchmark-range-1000",
            Range,
            Benchmark,
            (100, 10),
            Rate,
            Some(1.3),
        ),
        grpc(
            "benchmark-fan-out",
            FanOut,
            Benchmark,
            (100, 100),
            Rate,
            Some(1.5),
        ),
        grpc("h2load-put-64x1", Put, H2load, (64, 1), Rate, Some(2.0)),
        grpc("h2load-put-50x32", Put, H2load, (50, 32), Rate, Some(2.0)),
        grpc("h2load-range-64x1", Range, H2load, (64, 1), Rate, Some(1.5)),
        grpc(
            "h2load-range-50x32",
            Range,
            H2load,
            (50, 32),
            Rate,
            Some(1.5),
        ),
        grpc("grpc-put-64x1", Put, Ours, (64, 1), Rate, None),
        grpc("grpc-put-50x32", Put, Ours, (50, 32), Rate, None),
        grpc("grpc-get-64x1", Range, Ours, (64, 1), Rate, None),
        grpc("grpc-keepalive-50x8", KeepAlive, Ours, (50, 8), Rate, None),
        grpc("grpc-fan-out-100x100", FanOut, Ours, (100, 100), Rate, None),
    ]
};

impl Call {
    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Call::Range => "range",
            Call::List => "list",
            Call::ListStream => "list-stream",
            Call::KeepAlive => "keepalive",
            Call::FanOut => "fan-out",
            Call::Put => "put",
        }
    }

    /// The path of its method.
    pub fn path(self) -> &'static str {
        match self {
            Call::Range | Call::List => "/etcdserverpb.KV/Range",
            Call::ListStream => "/etcdserverpb.KV/RangeStream",
            Call::KeepAlive => "/etcdserverpb.Lease/LeaseKeepAlive",
            Call::FanOut => "/etcdserverpb.Watch/Watch",
            Call::Put => "/etcdserverpb.KV/Put",
        }
    }

    /// A message of a call that has one, as gRPC sends it: a key of 24 bytes, and a value of 256.
    pub fn message(self) -> Vec<u8> {
        let mut message = Vec::new();
        let mut field = |number: u8, bytes: &[u8]| {
            message.push(number << 3 | 2);
            // Lengths below 16384.
            match bytes.len() {
                length @ 0..128 => message.push(length as u8),
                length => message.extend([0x80 | length as u8, (length >> 7) as u8]),
            }
            message.extend_from_slice(bytes);
        };
        match self {
            Call::Put => {
                let value: Vec<u8> = (0..256).map(|at| (at * 7) as u8).collect();
                field(1, KEY.as_bytes());
                field(2, &value);
            }
            // From the first key on, with no end.
            Call::List | Call::ListStream => {
                field(1, &[0]);
                field(2, &[0]);
            }
            Call::Range | Call::KeepAlive | Call::FanOut => field(1, KEY.as_bytes()),
        }
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(&message);
        frame
    }

    /// Bytes that its answer has at least: a prefix, and of a read the pair.
    pub fn least_answer(self) -> u64 {
        match self {
            Call::Range => 5 + 24 + 256,
            _ => 5,
        }
    }
}

impl Tool {
    /// A short name, which rows begin with.
    pub fn short(self) -> &'static str {
        match self {
            Tool::Benchmark => "benchmark",
            Tool::H2load => "h2load",
            Tool::Ours => "grpc",
        }
    }

    /// Why it cannot be used, if it cannot.
    pub fn missing(self, programs: &Programs) -> Option<String> {
        let there = match self {
            Tool::Benchmark => programs.benchmark.is_some(),
            Tool::H2load => programs.h2load.is_some(),
            Tool::Ours => cfg!(feature = "etcd"),
        };
        let name = match self {
            Tool::Benchmark => "etcd's benchmark tool",
            Tool::H2load => "h2load",
            Tool::Ours => "quoin-bench's gRPC client (feature etcd, needs protoc)",
        };
        (!there).then(|| format!("{name} is missing"))
    }
}

/// The client of a load, if it is there.
pub fn candidate(
    call: Call,
    tool: Tool,
    shape: (usize, usize),
    programs: &Programs,
) -> Option<Candidate> {
    match tool {
        Tool::Benchmark => {
            let program = programs.benchmark.clone()?;
            let (connections, each) = shape;
            Some(match call {
                Call::FanOut => super::plan::benchmark_fan_out(program, shape),
                Call::Range => benchmark(program, "range", (connections, connections * each)),
                Call::Put => benchmark(program, "put", (connections, connections * each)),
                Call::KeepAlive => benchmark(
                    program,
                    "lease-keepalive",
                    (connections, connections * each),
                ),
                Call::List | Call::ListStream => return None,
            })
        }
        Tool::H2load => {
            let program = programs.h2load.clone()?;
            Some(Candidate {
                name: "h2load".into(),
                run: Box::new(move |address, span, folder| {
                    clients::h2load(&program, address, call, shape, span.time, folder)
                }),
            })
        }
        Tool::Ours => {
            let workload = match call {
                Call::Range => Workload::Get,
                Call::Put => Workload::Put,
                Call::KeepAlive => Workload::KeepAlive,
                Call::FanOut => {
                    return Some(Candidate {
                        name: "quoin-bench over gRPC".into(),
                        run: Box::new(move |address, span, _| {
                            clients::fan_out(Target::Etcd, address, shape, 16, span)
                        }),
                    });
                }
                Call::List | Call::ListStream => return None,
            };
            Some(Candidate {
                name: "quoin-bench over gRPC".into(),
                run: Box::new(move |address, span, _| {
                    let plan = clients::plan(Target::Etcd, address, workload, shape, span.time);
                    clients::ours(&plan)
                }),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_messages_are_grpc_frames() {
        for (call, bytes) in [
            (Call::Put, 2 + 24 + 3 + 256),
            (Call::Range, 2 + 24),
            (Call::List, 6),
        ] {
            let frame = call.message();
            let length = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]);
            assert_eq!(length as usize, frame.len() - 5);
            assert_eq!(length, bytes, "{call:?}");
        }
        assert_eq!(KEY, format!("{:024}", 4711));
    }

    #[test]
    fn every_row_has_its_client_where_all_programs_are_there() {
        let programs = |there: bool| Programs {
            quoin: None,
            etcd: None,
            benchmark: there.then(|| "benchmark".into()),
            h2load: there.then(|| "h2load".into()),
            redis: None,
            redis_benchmark: None,
        };
        let (all, none) = (programs(true), programs(false));
        for row in ROWS {
            let Load::Grpc(call, tool, ..) = row.load else {
                panic!("{} is no row of gRPC", row.name);
            };
            assert!(
                candidate(call, tool, row.load.shape(), &all).is_some(),
                "{}",
                row.name
            );
            if tool != Tool::Ours {
                assert!(candidate(call, tool, row.load.shape(), &none).is_none());
                assert!(
                    tool.missing(&none)
                        .is_some_and(|why| why.ends_with("is missing"))
                );
            }
            assert!(row.name.starts_with(tool.short()), "{}", row.name);
        }
    }
}
