package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// Random histories of all calls that quoin serves, over gRPC and through the JSON gateway, sent alike
// to two servers: every answer, every refusal and every event must be the same. Calls that change
// users, roles or members are not among them. What is said on standard input:
//
//	run N      N more calls; says how many there were in all
//	restarted  both servers have been started again
//
// What differs on purpose is in docs/compatibility.md, and is taken out here, at the place that
// names it.

const hurry = 20 * time.Second

// heard is what a stream of watches has told, by watch.
type heard struct {
	mu       sync.Mutex
	stream   pb.Watch_WatchClient
	cancel   context.CancelFunc
	told     map[int64][]string
	progress int64
	ended    error
}

type side struct {
	name        string
	kv          pb.KVClient
	lease       pb.LeaseClient
	watch       pb.WatchClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
	health      healthpb.HealthClient
	endpoint    string
	heard       *heard
}

type alike struct {
	*random
	sides  [2]*side
	calls  int
	events int
	last   []string
	// Whether the streams have a watch that a compaction ended: etcd then tells no more progress.
	overtaken bool
	ended     bool
	watches   int
	barriers  int64
	alarms    int
	// Revisions that were compacted since both were started.
	compacted map[int64]bool
	// Of locks and elections.
	episodes int64
	runs     int
}

func newSide(name, endpoint string) *side {
	conn := quick(endpoint).ActiveConnection()
	return &side{name: name, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), watch: pb.NewWatchClient(conn),
		cluster: pb.NewClusterClient(conn), maintenance: pb.NewMaintenanceClient(conn), auth: pb.NewAuthClient(conn),
		health: healthpb.NewHealthClient(conn), endpoint: endpoint}
}

func (a *alike) fault(format string, args ...any) {
	for _, call := range a.last {
		fmt.Fprintln(os.Stderr, "before:", call)
	}
	fault(format, args...)
}

// plain takes out of headers what differs from server to server, but has to be there.
func plain(header *pb.ResponseHeader) {
	if header != nil {
		if header.ClusterId == 0 || header.MemberId == 0 || header.RaftTerm == 0 {
			fault("a header without a cluster, a member or a term: %v", header)
		}
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
}

// both makes one call of both sides and holds the answers against each other; true if they are no
// refusals.
func both[T any](a *alike, what string, call func(context.Context, *side) (T, error)) (T, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), hurry)
	defer cancel()
	var answers [2]T
	var texts [2]string
	var all sync.WaitGroup
	for n, s := range a.sides {
		all.Add(1)
		go func() {
			defer all.Done()
			answer, err := call(ctx, s)
			if err != nil {
				refusal := status.Convert(err)
				texts[n] = fmt.Sprintf("%s: %s", refusal.Code(), refusal.Message())
				return
			}
			text, err := json.Marshal(answer)
			check(err)
			answers[n], texts[n] = answer, string(text)
		}()
	}
	all.Wait()
	a.calls++
	if texts[0] != texts[1] {
		a.fault("call %d, %s:\n%s: %s\n%s: %s", a.calls, what, a.sides[0].name, texts[0], a.sides[1].name, texts[1])
	}
	a.last = append(a.last, cut(what+" -> "+texts[0]))
	a.last = a.last[max(0, len(a.last)-12):]
	return answers[0], strings.HasPrefix(texts[0], "{")
}

func cut(text string) string { return text[:min(len(text), 700)] }

func (a *alike) saw(header *pb.ResponseHeader) { a.revision = max(a.revision, header.GetRevision()) }

func (a *alike) ranges() {
	q := a.rangeRequest()
	q.KeysOnly = a.chance(8)
	if a.chance(6) {
		// Pairs that are equal in what is sorted by come in an order that etcd leaves open: all of
		// them, then, and without the order.
		q.Limit, q.SortOrder, q.SortTarget = 0, pb.RangeRequest_SortOrder(a.Intn(4)), pb.RangeRequest_SortTarget(a.Intn(6))
	}
	answer, ok := both(a, "range "+describe(q), func(ctx context.Context, s *side) (*pb.RangeResponse, error) {
		answer, err := s.kv.Range(ctx, q)
		plain(answer.GetHeader())
		normal(q, answer)
		if q.SortTarget != pb.RangeRequest_KEY {
			slices.SortFunc(answer.GetKvs(), func(a, b *mvccpb.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
		}
		return answer, err
	})
	if ok {
		a.saw(answer.Header)
	}
}

// normal takes out the lease of a pair without its value, which etcd 3.7 leaves away.
func normal(q *pb.RangeRequest, answer *pb.RangeResponse) {
	for _, kv := range answer.GetKvs() {
		if q.KeysOnly {
			kv.Lease = 0
		}
	}
}

func (a *alike) someLease() int64 {
	if a.chance(3) {
		return int64(a.Intn(6))
	}
	return 0
}

func (a *alike) puts() {
	q := a.putRequest()
	q.Lease = a.someLease()
	q.IgnoreValue = a.chance(8)
	if a.chance(4) {
		q.Key = fmt.Appendf(nil, "k/%03d", a.Intn(400))
	}
	if a.chance(60) {
		q.Value = make([]byte, a.Intn(100000))
	}
	a.put(q)
}

func (a *alike) put(q *pb.PutRequest) {
	answer, ok := both(a, "put "+cut(describe(q)), func(ctx context.Context, s *side) (*pb.PutResponse, error) {
		answer, err := s.kv.Put(ctx, q)
		plain(answer.GetHeader())
		return answer, err
	})
	if ok {
		a.saw(answer.Header)
	}
}

func (a *alike) deletes() {
	q := a.deleteRequest()
	answer, ok := both(a, "delete "+describe(q), func(ctx context.Context, s *side) (*pb.DeleteRangeResponse, error) {
		answer, err := s.kv.DeleteRange(ctx, q)
		plain(answer.GetHeader())
		return answer, err
	})
	if ok {
		a.saw(answer.Header)
	}
}

func (a *alike) leased(ops []*pb.RequestOp) {
	for _, op := range ops {
		if put := op.GetRequestPut(); put != nil && a.chance(3) {
			put.Lease = a.someLease()
		}
	}
}

func (a *alike) txns() {
	q := a.txnRequest(2)
	a.leased(q.Success)
	a.leased(q.Failure)
	for _, compare := range q.Compare {
		if compare.Target == pb.Compare_LEASE {
			compare.TargetUnion = &pb.Compare_Lease{Lease: int64(a.Intn(4))}
		}
	}
	a.txn(q)
}

func (a *alike) txn(q *pb.TxnRequest) {
	answer, ok := both(a, "txn "+cut(describe(q)), func(ctx context.Context, s *side) (*pb.TxnResponse, error) {
		answer, err := s.kv.Txn(ctx, q)
		plain(answer.GetHeader())
		return answer, err
	})
	if ok {
		a.saw(answer.Header)
	}
}

// big makes an event that has to be told in fragments.
func (a *alike) big() {
	value := make([]byte, 700<<10)
	for range 2 {
		a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("a"), Value: value}), opPut(&pb.PutRequest{Key: b("b"), Value: value})}})
	}
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("a")}), opPut(&pb.PutRequest{Key: b("b")})}})
}

func (a *alike) compacts() {
	// Watches that etcd has not brought up to date would be overtaken, there alone.
	a.caughtUp()
	a.compact(&pb.CompactionRequest{Revision: a.revision - int64(a.Intn(60)) + 3, Physical: a.chance(4)})
}

func (a *alike) compact(q *pb.CompactionRequest) {
	_, ok := both(a, "compact "+describe(q), func(ctx context.Context, s *side) (*pb.CompactionResponse, error) {
		answer, err := s.kv.Compact(ctx, q)
		plain(answer.GetHeader())
		return answer, err
	})
	if ok {
		a.compacted[q.Revision] = true
	}
}

func (a *alike) leases() {
	id := int64(1 + a.Intn(5))
	switch a.Intn(6) {
	case 0, 1:
		q := &pb.LeaseGrantRequest{ID: id, TTL: []int64{5000, 70000, 9000000000, 9000000001}[a.Intn(4)]}
		a.grant(q)
	case 2:
		a.revoke(id)
	case 3:
		q := &pb.LeaseTimeToLiveRequest{ID: id, Keys: a.chance(2)}
		both(a, "left "+describe(q), func(ctx context.Context, s *side) (*pb.LeaseTimeToLiveResponse, error) {
			answer, err := s.lease.LeaseTimeToLive(ctx, q)
			plain(answer.GetHeader())
			if answer != nil && answer.TTL > 0 {
				// Seconds pass between the one and the other, and etcd starts anew after a restart.
				answer.TTL = 1
			}
			slices.SortFunc(answer.GetKeys(), func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
			return answer, err
		})
	case 4:
		both(a, "leases", func(ctx context.Context, s *side) (*pb.LeaseLeasesResponse, error) {
			answer, err := s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			plain(answer.GetHeader())
			slices.SortFunc(answer.GetLeases(), func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
			return answer, err
		})
	default:
		both(a, fmt.Sprint("keep alive ", id), func(ctx context.Context, s *side) (*pb.LeaseKeepAliveResponse, error) {
			stream, err := s.lease.LeaseKeepAlive(ctx)
			if err != nil {
				return nil, err
			}
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				return nil, err
			}
			answer, err := stream.Recv()
			plain(answer.GetHeader())
			return answer, err
		})
	}
}

// raise raises an alarm for some calls, or takes one back.
func (a *alike) alarm() {
	const member = 7
	q := &pb.AlarmRequest{Action: pb.AlarmRequest_AlarmAction(a.Intn(3)), MemberID: member, Alarm: pb.AlarmType(a.Intn(3))}
	if q.Action != pb.AlarmRequest_GET && q.Alarm == pb.AlarmType_NONE {
		q.Alarm = pb.AlarmType_NOSPACE
	}
	both(a, "alarm "+describe(q), func(ctx context.Context, s *side) (*pb.AlarmResponse, error) {
		answer, err := s.maintenance.Alarm(ctx, q)
		plain(answer.GetHeader())
		slices.SortFunc(answer.GetAlarms(), func(a, b *pb.AlarmMember) int { return int(a.Alarm - b.Alarm) })
		return answer, err
	})
	if q.Action == pb.AlarmRequest_ACTIVATE {
		a.alarms = 1 + a.Intn(20)
	}
}

// calm takes back what was raised some calls ago.
func (a *alike) calm() {
	if a.alarms--; a.alarms == 0 {
		for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
			q := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 7, Alarm: kind}
			both(a, "alarm "+describe(q), func(ctx context.Context, s *side) (*pb.AlarmResponse, error) {
				answer, err := s.maintenance.Alarm(ctx, q)
				plain(answer.GetHeader())
				return answer, err
			})
		}
	}
}

func (a *alike) member() {
	switch a.Intn(3) {
	case 0:
		linearizable := a.chance(2)
		both(a, "members", func(ctx context.Context, s *side) (*pb.MemberListResponse, error) {
			answer, err := s.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: linearizable})
			plain(answer.GetHeader())
			for _, member := range answer.GetMembers() {
				member.ID, member.ClientURLs, member.PeerURLs = 0, nil, nil
			}
			return answer, err
		})
	case 1:
		both(a, "status", func(ctx context.Context, s *side) (*pb.StatusResponse, error) {
			answer, err := s.maintenance.Status(ctx, &pb.StatusRequest{})
			if answer == nil {
				return nil, err
			}
			plain(answer.Header)
			// etcd's own printing of alarms has one space or two, by the build.
			for n, text := range answer.Errors {
				answer.Errors[n] = strings.Join(strings.Fields(text), " ")
			}
			slices.Sort(answer.Errors)
			return &pb.StatusResponse{Header: answer.Header, Version: answer.Version, Errors: answer.Errors, IsLearner: answer.IsLearner,
				StorageVersion: answer.StorageVersion, DowngradeInfo: answer.DowngradeInfo}, err
		})
	default:
		both(a, "auth", func(ctx context.Context, s *side) (*pb.AuthStatusResponse, error) {
			answer, err := s.auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
			plain(answer.GetHeader())
			return answer, err
		})
	}
}

func (a *alike) step() {
	switch n := a.Intn(200); {
	case n < 42:
		a.puts()
	case n < 56:
		a.gateway()
	case n < 59:
		a.maintains()
	case n < 60:
		a.locks()
	case n < 86:
		a.ranges()
	case n < 90:
		a.streams()
	case n < 105:
		a.deletes()
	case n < 150:
		a.txns()
	case n < 170:
		a.leases()
	case n < 185:
		a.watchSomething()
	case n < 190:
		a.compacts()
	case n < 193:
		a.member()
	case n < 194:
		a.hashes()
	case n < 196:
		a.alarm()
	case n < 197 && a.chance(4):
		a.big()
	default:
		a.askProgress()
	}
	a.calm()
}

func (a *alike) run(count int) {
	for until := a.calls + count; a.calls < until; {
		a.step()
	}
	a.same()
	// It takes some seconds.
	if a.runs%3 == 0 {
		a.expires()
	}
	a.runs++
	q := &pb.RangeRequest{Key: b("\x00"), RangeEnd: b("\x00")}
	both(a, "all", func(ctx context.Context, s *side) (*pb.RangeResponse, error) {
		answer, err := s.kv.Range(ctx, q, grpc.MaxCallRecvMsgSize(1<<30))
		plain(answer.GetHeader())
		return answer, err
	})
	fmt.Printf("alike calls=%d events=%d revision=%d\n", a.calls, a.events, a.revision)
}

func beAlike(endpoint, other string, seed int64) {
	a := &alike{random: &random{Rand: rand.New(rand.NewSource(seed)), revision: 1}, compacted: map[int64]bool{},
		sides: [2]*side{newSide("etcd", endpoint), newSide("quoin", other)}}
	a.listen()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var count int
		if n, _ := fmt.Sscanf(lines.Text(), "run %d", &count); n == 1 {
			a.run(count)
		} else if lines.Text() == "restarted" {
			a.again()
		} else {
			fault("unknown: %s", lines.Text())
		}
	}
}

// again waits until both servers answer, and listens anew.
func (a *alike) again() {
	deadline := time.Now().Add(hurry)
	for _, s := range a.sides {
		s.heard.cancel()
		for {
			ctx, cancel := context.WithTimeout(context.Background(), hurry)
			_, err := s.kv.Range(ctx, &pb.RangeRequest{Key: b("a")})
			cancel()
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				fault("%s does not come back: %v", s.name, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	a.listen()
	fmt.Println("back")
}

// hashes compares the hash of all history up to a revision.
func (a *alike) hashes() {
	revision := a.revision - int64(a.Intn(4))
	if a.chance(3) {
		revision = 0
	}
	at := revision
	if at == 0 {
		at = a.revision
	}
	// etcd keeps the hashes that it made while it compacted, and quoin makes them anew, of what is
	// left: docs/compatibility.md.
	if a.compacted[at] {
		return
	}
	both(a, fmt.Sprint("hash at ", revision), func(ctx context.Context, s *side) (*pb.HashKVResponse, error) {
		answer, err := s.maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		plain(answer.GetHeader())
		return answer, err
	})
}

// streams asks for a range as a stream. Where it is cut is left open; taken together it is the
// answer to the range, and the last piece alone says how many there are.
func (a *alike) streams() {
	q := a.rangeRequest()
	if a.chance(2) {
		q = &pb.RangeRequest{Key: b("k"), RangeEnd: b("l"), Limit: int64(a.Intn(3) * 40), KeysOnly: a.chance(4)}
	}
	q.Serializable = false
	if q.SortOrder == pb.RangeRequest_NONE && a.chance(20) {
		// Refused, or taken for the order of the keys.
		q.SortOrder = pb.RangeRequest_DESCEND
	}
	if q.Revision < 0 {
		// Each piece at the newest revision of its time, in etcd: docs/compatibility.md.
		q.Revision = 0
	}
	answer, ok := both(a, "stream "+describe(q), func(ctx context.Context, s *side) (*pb.RangeResponse, error) {
		stream, err := s.kv.RangeStream(ctx, q)
		if err != nil {
			return nil, err
		}
		whole := &pb.RangeResponse{}
		for {
			piece, err := stream.Recv()
			if err == io.EOF {
				plain(whole.Header)
				normal(q, whole)
				return whole, nil
			}
			if err != nil {
				return nil, err
			}
			part := piece.RangeResponse
			if whole.Header != nil {
				return nil, fmt.Errorf("%s told more behind its last piece", s.name)
			}
			if part.Header == nil && (part.Count != 0 || part.More) {
				return nil, fmt.Errorf("%s told a count before its last piece", s.name)
			}
			whole.Kvs = append(whole.Kvs, part.Kvs...)
			whole.Header, whole.Count, whole.More = part.Header, part.Count, part.More
		}
	})
	if ok {
		a.saw(answer.Header)
	}
}
