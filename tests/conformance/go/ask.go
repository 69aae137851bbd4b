package main

import (
	"context"
	"encoding/json"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
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

// grant asks for a lease under an id of the caller's choice, which etcd's client has no call for.
func grant(ctx context.Context, client *clientv3.Client, id clientv3.LeaseID, seconds int64) (*clientv3.LeaseGrantResponse, error) {
	answer, err := clientv3.RetryLeaseClient(client).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds, ID: int64(id)})
	if err != nil {
		return nil, err
	}
	return &clientv3.LeaseGrantResponse{ResponseHeader: answer.Header, ID: clientv3.LeaseID(answer.ID), TTL: answer.TTL}, nil
}
