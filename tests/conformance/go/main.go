// Command conformance asks a server of etcd's API everything there is to ask of the calls that
// quoin serves, through etcd's own client, and prints each answer on a line. Run against etcd and
// against quoin it must print the same.
//
//	conformance ENDPOINT script          the fixed list of calls
//	conformance ENDPOINT random SEED N   N random calls
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

type asker struct {
	ctx         context.Context
	kv          pb.KVClient
	lease       pb.LeaseClient
	watch       pb.WatchClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
	health      healthpb.HealthClient
	n           int
}

// scrub takes out of an answer what differs from server to server.
func scrub(header *pb.ResponseHeader) {
	if header != nil {
		if header.ClusterId == 0 || header.MemberId == 0 || header.RaftTerm == 0 {
			fmt.Println("a header without a cluster, a member or a term")
		}
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
}

func (a *asker) say(what string, answer any, err error) {
	a.n++
	if err != nil {
		s := status.Convert(err)
		fmt.Printf("%d %s -> %s: %s\n", a.n, what, s.Code(), s.Message())
		return
	}
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%d %s -> %s\n", a.n, what, text)
}

func describe(request any) string {
	text, err := json.Marshal(request)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (a *asker) rangeOf(r *pb.RangeRequest) {
	answer, err := a.kv.Range(a.ctx, r)
	scrub(answer.GetHeader())
	a.say("range "+describe(r), answer, err)
}

func (a *asker) put(r *pb.PutRequest) {
	answer, err := a.kv.Put(a.ctx, r)
	scrub(answer.GetHeader())
	a.say("put "+describe(r), answer, err)
}

func (a *asker) del(r *pb.DeleteRangeRequest) {
	answer, err := a.kv.DeleteRange(a.ctx, r)
	scrub(answer.GetHeader())
	a.say("delete "+describe(r), answer, err)
}

func (a *asker) txn(r *pb.TxnRequest) {
	answer, err := a.kv.Txn(a.ctx, r)
	scrub(answer.GetHeader())
	a.say("txn "+describe(r), answer, err)
}

func (a *asker) compact(r *pb.CompactionRequest) {
	answer, err := a.kv.Compact(a.ctx, r)
	scrub(answer.GetHeader())
	a.say("compact "+describe(r), answer, err)
}

func opRange(r *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
}

func opPut(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func opDelete(r *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
}

func opTxn(r *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}
}

func b(text string) []byte { return []byte(text) }

func version(key string, result pb.Compare_CompareResult, operand int64) *pb.Compare {
	return &pb.Compare{Key: b(key), Target: pb.Compare_VERSION, Result: result,
		TargetUnion: &pb.Compare_Version{Version: operand}}
}

func (a *asker) script() {
	all := func() *pb.RangeRequest { return &pb.RangeRequest{Key: b("\x00"), RangeEnd: b("\x00")} }

	// An empty store.
	a.rangeOf(all())
	a.rangeOf(&pb.RangeRequest{Key: b("a")})
	a.del(&pb.DeleteRangeRequest{Key: b("a"), PrevKv: true})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), CountOnly: true})

	// Puts.
	a.put(&pb.PutRequest{Key: b("a"), Value: b("1")})
	a.put(&pb.PutRequest{Key: b("a"), Value: b("2"), PrevKv: true})
	a.put(&pb.PutRequest{Key: b("b"), PrevKv: true})
	a.put(&pb.PutRequest{Key: b("a"), IgnoreValue: true, PrevKv: true})
	a.put(&pb.PutRequest{Key: b("a"), Value: b("x"), IgnoreValue: true})
	a.put(&pb.PutRequest{Key: b("a"), Lease: 5, IgnoreLease: true})
	a.put(&pb.PutRequest{Key: b("a"), IgnoreLease: true, Value: b("3")})
	a.put(&pb.PutRequest{Key: b("none"), IgnoreValue: true})
	a.put(&pb.PutRequest{Key: b("none"), IgnoreLease: true})
	a.put(&pb.PutRequest{Key: b("a"), Value: b("x"), Lease: 12345})
	a.put(&pb.PutRequest{Value: b("x")})
	a.put(&pb.PutRequest{Key: b("c"), Value: b("0")})
	a.put(&pb.PutRequest{Key: b("c/1"), Value: b("9")})
	a.put(&pb.PutRequest{Key: b("c/2"), Value: b("8")})

	// Ranges.
	a.rangeOf(all())
	for _, order := range []pb.RangeRequest_SortOrder{0, 1, 2, 3} {
		for _, target := range []pb.RangeRequest_SortTarget{0, 1, 2, 3, 4, 5, -1} {
			r := all()
			r.SortOrder, r.SortTarget, r.Limit = order, target, 2
			a.rangeOf(r)
		}
	}
	a.rangeOf(&pb.RangeRequest{SortOrder: 9})
	a.rangeOf(&pb.RangeRequest{Key: b("b"), RangeEnd: b("\x00"), Limit: 1})
	a.rangeOf(&pb.RangeRequest{Key: b("b"), RangeEnd: b("c/"), KeysOnly: true, SortTarget: 4})
	a.rangeOf(&pb.RangeRequest{Key: b("z"), RangeEnd: b("a")})
	a.rangeOf(&pb.RangeRequest{Key: b("c"), RangeEnd: b("d"), CountOnly: true, Limit: 1})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), Revision: 2})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), Revision: 99})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), Revision: -3, Serializable: true})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinModRevision: 4, MaxModRevision: 7, Limit: 1})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), RangeEnd: b("z"), MinCreateRevision: 4, MaxCreateRevision: 8})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), Limit: -1})

	// Transactions.
	a.txn(&pb.TxnRequest{})
	a.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{version("new", pb.Compare_EQUAL, 0)},
		Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: b("new")}), opPut(&pb.PutRequest{Key: b("new"), Value: b("v")}),
			opRange(&pb.RangeRequest{Key: b("new")}), opDelete(&pb.DeleteRangeRequest{Key: b("nothing")})},
		Failure: []*pb.RequestOp{opDelete(&pb.DeleteRangeRequest{Key: b("new"), PrevKv: true})},
	})
	a.txn(&pb.TxnRequest{
		Compare: []*pb.Compare{version("new", pb.Compare_EQUAL, 0)},
		Failure: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: b("new")}),
			opTxn(&pb.TxnRequest{
				Compare: []*pb.Compare{version("new", pb.Compare_GREATER, 0)},
				Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: b("new")}), opDelete(&pb.DeleteRangeRequest{Key: b("new"), PrevKv: true}),
					opRange(&pb.RangeRequest{Key: b("new")})},
			}),
			opRange(&pb.RangeRequest{Key: b("new")}), opPut(&pb.PutRequest{Key: b("other"), PrevKv: true})},
	})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opDelete(&pb.DeleteRangeRequest{Key: b("nothing")})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opTxn(&pb.TxnRequest{})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{{}}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: b("a"), SortOrder: 7})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opRange(&pb.RangeRequest{})}})
	a.txn(&pb.TxnRequest{Compare: []*pb.Compare{version("", pb.Compare_EQUAL, 0)}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opRange(&pb.RangeRequest{Key: b("a"), Revision: 99})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("a")}), opPut(&pb.PutRequest{Key: b("a")})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("a")}),
		opDelete(&pb.DeleteRangeRequest{Key: b("a"), RangeEnd: b("b")})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("q"), IgnoreValue: true})}})
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("q"), Lease: 8})}})
	for _, compare := range []*pb.Compare{
		{Key: b("a"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: b("3")}},
		{Key: b("no"), Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL, TargetUnion: &pb.Compare_Value{Value: b("3")}},
		{Key: b("a"), Target: pb.Compare_MOD, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_ModRevision{ModRevision: 99}},
		{Key: b("a"), RangeEnd: b("d"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 2}},
		{Key: b("a"), RangeEnd: b("d"), Target: pb.Compare_CREATE, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 1}},
		{Key: b("a"), Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 0}},
		// The operand of another target counts as none.
		{Key: b("no"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_ModRevision{ModRevision: 7}},
		{Key: b("no"), Target: pb.Compare_VERSION},
	} {
		a.txn(&pb.TxnRequest{Compare: []*pb.Compare{compare}})
	}
	many := &pb.TxnRequest{}
	for n := range 128 {
		many.Success = append(many.Success, opPut(&pb.PutRequest{Key: b(fmt.Sprintf("many/%03d", n)), Value: b("v")}))
	}
	answer, err := a.kv.Txn(a.ctx, many)
	a.say("128 puts", len(answer.GetResponses()), err)
	many.Success = append(many.Success, opPut(&pb.PutRequest{Key: b("one more")}))
	_, err = a.kv.Txn(a.ctx, many)
	a.say("129 puts", nil, err)

	// Deletes.
	a.del(&pb.DeleteRangeRequest{Key: b("many/"), RangeEnd: b("many/003"), PrevKv: true})
	a.del(&pb.DeleteRangeRequest{Key: b("many/"), RangeEnd: b("many0")})
	a.del(&pb.DeleteRangeRequest{Key: b("z"), RangeEnd: b("a")})
	a.del(&pb.DeleteRangeRequest{})
	a.del(&pb.DeleteRangeRequest{Key: b("b")})

	// Compaction.
	a.compact(&pb.CompactionRequest{Revision: 99})
	a.compact(&pb.CompactionRequest{Revision: 6})
	a.compact(&pb.CompactionRequest{Revision: 6})
	a.compact(&pb.CompactionRequest{Revision: 0})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), Revision: 5})
	a.rangeOf(&pb.RangeRequest{Key: b("a"), Revision: 6})
	a.compact(&pb.CompactionRequest{Revision: 7, Physical: true})

	// Sizes: between the limit and what a message may hold, and beyond.
	_, err = a.kv.Put(a.ctx, &pb.PutRequest{Key: b("big"), Value: make([]byte, 1600*1024)})
	a.say("1600 KiB", nil, err)
	_, err = a.kv.Put(a.ctx, &pb.PutRequest{Key: b("big"), Value: make([]byte, 3<<20)}, grpc.MaxCallSendMsgSize(8<<20))
	a.say("3 MiB", nil, err)
	_, err = a.kv.Put(a.ctx, &pb.PutRequest{Key: b("big"), Value: make([]byte, 1<<20)})
	a.say("1 MiB", nil, err)
	big, err := a.kv.Range(a.ctx, &pb.RangeRequest{Key: b("big")})
	if err != nil || len(big.Kvs) != 1 || len(big.Kvs[0].Value) != 1<<20 {
		fmt.Println("the value of 1 MiB does not come back:", err)
	}

	// Metadata.
	for _, pair := range [][2]string{{"hasleader", "true"}, {"client-api-version", "3.7.0"}, {"token", "none"}} {
		ctx := metadata.AppendToOutgoingContext(a.ctx, pair[0], pair[1])
		answer, err := a.kv.Range(ctx, &pb.RangeRequest{Key: b("a"), CountOnly: true})
		a.say("with "+pair[0], answer.GetCount(), err)
	}
}

func (a *asker) leases() {
	grant := func(r *pb.LeaseGrantRequest) {
		answer, err := a.lease.LeaseGrant(a.ctx, r)
		scrub(answer.GetHeader())
		a.say("grant "+describe(r), answer, err)
	}
	revoke := func(id int64) {
		answer, err := a.lease.LeaseRevoke(a.ctx, &pb.LeaseRevokeRequest{ID: id})
		scrub(answer.GetHeader())
		a.say(fmt.Sprint("revoke ", id), answer, err)
	}
	left := func(id int64, keys bool) {
		answer, err := a.lease.LeaseTimeToLive(a.ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: keys})
		scrub(answer.GetHeader())
		if answer.GetTTL() > 90 {
			answer.TTL = 100
		}
		slices.SortFunc(answer.GetKeys(), bytes.Compare)
		a.say(fmt.Sprint("time to live ", id, keys), answer, err)
	}
	grant(&pb.LeaseGrantRequest{ID: 7, TTL: 100})
	grant(&pb.LeaseGrantRequest{ID: 7, TTL: 100})
	grant(&pb.LeaseGrantRequest{ID: 8, TTL: 9000000001})
	grant(&pb.LeaseGrantRequest{ID: 9, TTL: -1})
	grant(&pb.LeaseGrantRequest{ID: 10, TTL: 200})
	chosen, err := a.lease.LeaseGrant(a.ctx, &pb.LeaseGrantRequest{TTL: 100})
	a.say("an id of the server's choice", chosen.GetID() > 0, err)
	_, err = a.lease.LeaseRevoke(a.ctx, &pb.LeaseRevokeRequest{ID: chosen.GetID()})
	a.say("and its end", nil, err)
	a.put(&pb.PutRequest{Key: b("leased/1"), Value: b("x"), Lease: 7})
	a.put(&pb.PutRequest{Key: b("leased/2"), Value: b("y"), Lease: 7})
	a.rangeOf(&pb.RangeRequest{Key: b("leased/"), RangeEnd: b("leased0")})
	left(7, false)
	left(7, true)
	left(99, true)
	a.put(&pb.PutRequest{Key: b("leased/2"), Value: b("z"), IgnoreLease: true})
	a.put(&pb.PutRequest{Key: b("leased/1"), Value: b("z")})
	left(7, true)
	revoke(9)
	all, err := a.lease.LeaseLeases(a.ctx, &pb.LeaseLeasesRequest{})
	scrub(all.GetHeader())
	a.say("leases", all, err)
	stream, err := a.lease.LeaseKeepAlive(a.ctx)
	if err != nil {
		a.say("keep alive", nil, err)
		return
	}
	for _, id := range []int64{7, 99, 10, 7} {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			a.say("keep alive", nil, err)
		}
		answer, err := stream.Recv()
		scrub(answer.GetHeader())
		a.say(fmt.Sprint("keep alive ", id), answer, err)
	}
	a.say("no more", nil, stream.CloseSend())
	_, err = stream.Recv()
	a.say("the end is io.EOF", err == io.EOF, nil)
	revoke(7)
	revoke(7)
	left(7, true)
	a.rangeOf(&pb.RangeRequest{Key: b("leased/"), RangeEnd: b("leased0")})
	revoke(10)
}

// watches asks for one thing after the other on a stream of watches and takes what comes of it.
func (a *asker) watches() {
	stream, err := a.watch.Watch(a.ctx)
	if err != nil {
		a.say("watch", nil, err)
		return
	}
	hear := func(what string, times int) {
		for range times {
			answer, err := stream.Recv()
			scrub(answer.GetHeader())
			a.say(what, answer, err)
		}
	}
	send := func(r *pb.WatchRequest) {
		if err := stream.Send(r); err != nil {
			a.say("send", nil, err)
		}
	}
	create := func(r *pb.WatchCreateRequest, times int) {
		send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
		hear("watch "+describe(r), times)
	}
	cancel := func(id int64, times int) {
		send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
		hear(fmt.Sprint("cancel ", id), times)
	}
	a.put(&pb.PutRequest{Key: b("w/a"), Value: b("0")})
	create(&pb.WatchCreateRequest{Key: b("w/"), RangeEnd: b("w0"), PrevKv: true}, 1)
	a.put(&pb.PutRequest{Key: b("w/a"), Value: b("1")})
	hear("put", 1)
	a.put(&pb.PutRequest{Key: b("w/b"), Value: b("1")})
	hear("put", 1)
	a.del(&pb.DeleteRangeRequest{Key: b("w/"), RangeEnd: b("w0")})
	hear("delete", 1)
	a.txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut(&pb.PutRequest{Key: b("w/c"), Value: b("1")}),
		opPut(&pb.PutRequest{Key: b("w/d"), Value: b("1")}), opPut(&pb.PutRequest{Key: b("elsewhere")})}})
	hear("txn", 1)
	cancel(0, 1)
	cancel(77, 0)
	now, err := a.kv.Range(a.ctx, &pb.RangeRequest{Key: b("w/a")})
	if err != nil {
		a.say("revision", nil, err)
		return
	}
	revision := now.Header.Revision
	create(&pb.WatchCreateRequest{Key: b("w/"), RangeEnd: b("w0"), StartRevision: revision - 3, WatchId: 9}, 2)
	create(&pb.WatchCreateRequest{Key: b("w/c"), WatchId: 9}, 1)
	create(&pb.WatchCreateRequest{Key: b("z"), RangeEnd: b("a")}, 1)
	create(&pb.WatchCreateRequest{Key: b("w/c"), StartRevision: -1}, 1)
	// Behind the next watch etcd no longer answers: one that a compaction has ended holds it up.
	send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	hear("progress", 1)
	create(&pb.WatchCreateRequest{Key: b("w/c"), StartRevision: 1}, 2)
	cancel(9, 1)
	create(&pb.WatchCreateRequest{Key: b("w/"), RangeEnd: b("\x00"), WatchId: 4, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}, 1)
	a.put(&pb.PutRequest{Key: b("w/c"), Value: b("2")})
	a.del(&pb.DeleteRangeRequest{Key: b("w/c")})
	hear("delete behind a put", 1)
	a.say("no more", nil, stream.CloseSend())
	a.put(&pb.PutRequest{Key: b("w/e")})
	a.del(&pb.DeleteRangeRequest{Key: b("w/e")})
	hear("delete after the close", 1)
}

func (a *asker) member() {
	list, err := a.cluster.MemberList(a.ctx, &pb.MemberListRequest{Linearizable: true})
	scrub(list.GetHeader())
	for _, member := range list.GetMembers() {
		member.ClientURLs = nil
	}
	a.say("members", list, err)
	status, err := a.maintenance.Status(a.ctx, &pb.StatusRequest{})
	scrub(status.GetHeader())
	whole := status.GetDbSize() > 0 && status.GetDbSizeInUse() > 0 && status.GetDbSizeQuota() > 0 &&
		status.GetRaftIndex() > 0 && status.GetRaftAppliedIndex() > 0 && status.GetRaftTerm() > 0
	a.say("status", []any{status.GetVersion(), status.GetStorageVersion(), status.GetLeader(), status.GetErrors(),
		status.GetIsLearner(), status.GetDowngradeInfo(), whole}, err)
	for _, request := range []*pb.AlarmRequest{{}, {Alarm: pb.AlarmType_NOSPACE}, {Alarm: pb.AlarmType_CORRUPT},
		{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}} {
		answer, err := a.maintenance.Alarm(a.ctx, request)
		scrub(answer.GetHeader())
		a.say("alarm "+describe(request), answer, err)
	}
	defragmented, err := a.maintenance.Defragment(a.ctx, &pb.DefragmentRequest{})
	a.say("defragment", defragmented, err)
	auth, err := a.auth.AuthStatus(a.ctx, &pb.AuthStatusRequest{})
	scrub(auth.GetHeader())
	a.say("auth", auth, err)
	for _, service := range []string{"", "etcdserverpb.KV"} {
		health, err := a.health.Check(a.ctx, &healthpb.HealthCheckRequest{Service: service})
		a.say("health "+service, health, err)
	}
}

type random struct {
	*rand.Rand
	revision int64
}

func (r *random) pick(texts ...string) []byte { return b(texts[r.Intn(len(texts))]) }

func (r *random) chance(n int) bool { return r.Intn(n) == 0 }

func (r *random) key() []byte {
	return r.pick("a", "aa", "ab", "b", "ba", "c", "c\x00", "\xff", "\x00")
}

func (r *random) end() []byte {
	return r.pick("", "", "\x00", "a", "ab", "b", "c", "d", "\xff\xff")
}

func (r *random) rangeRequest() *pb.RangeRequest {
	q := &pb.RangeRequest{Key: r.key(), RangeEnd: r.end(), CountOnly: r.chance(8), Serializable: r.chance(4)}
	if r.chance(3) {
		q.Limit = int64(r.Intn(4))
	}
	if r.chance(4) {
		q.Revision = r.revision - int64(r.Intn(12)) + 1
	}
	if r.chance(5) {
		q.MinModRevision, q.MaxCreateRevision = r.revision-int64(r.Intn(9)), r.revision-int64(r.Intn(4))
	}
	// Other orders leave open which of equal pairs comes first.
	if r.chance(3) {
		q.SortOrder, q.SortTarget = pb.RangeRequest_SortOrder(r.Intn(3)), pb.RangeRequest_KEY
	}
	return q
}

func (r *random) putRequest() *pb.PutRequest {
	q := &pb.PutRequest{Key: r.key(), Value: r.pick("", "x", "y", "yy"), PrevKv: r.chance(2)}
	if r.chance(8) {
		q.IgnoreLease = true
	}
	return q
}

func (r *random) deleteRequest() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: r.key(), RangeEnd: r.end(), PrevKv: r.chance(2)}
}

func (r *random) compare() *pb.Compare {
	c := &pb.Compare{Key: r.key(), Result: pb.Compare_CompareResult(r.Intn(4)), Target: pb.Compare_CompareTarget(r.Intn(5))}
	if r.chance(3) {
		c.RangeEnd = r.end()
	}
	switch c.Target {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: int64(r.Intn(3))}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: r.revision - int64(r.Intn(9))}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: r.revision - int64(r.Intn(9))}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: r.pick("", "x", "y")}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: int64(r.Intn(2))}
	}
	return c
}

func (r *random) ops(depth int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range r.Intn(3) {
		switch n := r.Intn(10); {
		case n < 4:
			ops = append(ops, opRange(r.rangeRequest()))
		case n < 7:
			put := r.putRequest()
			put.IgnoreLease = false
			ops = append(ops, opPut(put))
		case n < 9 || depth == 0:
			ops = append(ops, opDelete(r.deleteRequest()))
		default:
			ops = append(ops, opTxn(r.txnRequest(depth-1)))
		}
	}
	return ops
}

func (r *random) txnRequest(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{Success: r.ops(depth), Failure: r.ops(depth)}
	for range r.Intn(2) {
		t.Compare = append(t.Compare, r.compare())
	}
	return t
}

func (a *asker) random(seed int64, count int) {
	r := &random{Rand: rand.New(rand.NewSource(seed)), revision: 1}
	for range count {
		switch n := r.Intn(20); {
		case n < 6:
			a.put(r.putRequest())
		case n < 11:
			a.rangeOf(r.rangeRequest())
		case n < 13:
			a.del(r.deleteRequest())
		default:
			a.txn(r.txnRequest(2))
		}
		answer, err := a.kv.Range(a.ctx, &pb.RangeRequest{Key: b("a"), CountOnly: true})
		if err != nil {
			fmt.Println("no revision:", err)
			return
		}
		r.revision = answer.Header.Revision
	}
	a.rangeOf(&pb.RangeRequest{Key: b("\x00"), RangeEnd: b("\x00")})
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return n
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: conformance ENDPOINT script | random SEED N")
		os.Exit(2)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{os.Args[1]}, DialTimeout: 10 * time.Second})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	conn := client.ActiveConnection()
	a := &asker{ctx: ctx, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn), watch: pb.NewWatchClient(conn), cluster: pb.NewClusterClient(conn),
		maintenance: pb.NewMaintenanceClient(conn), auth: pb.NewAuthClient(conn), health: healthpb.NewHealthClient(conn)}
	switch strings.Join(os.Args[2:3], "") {
	case "script":
		a.script()
		a.leases()
		a.watches()
		a.member()
	case "random":
		a.random(int64(number(os.Args[3])), number(os.Args[4]))
	}
}
