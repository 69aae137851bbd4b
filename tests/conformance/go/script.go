package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

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
