package main

import (
	"math/rand"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

type random struct {
	*rand.Rand
	revision int64
}

func (r *random) pick(texts ...string) []byte { return b(texts[r.Intn(len(texts))]) }

func (r *random) chance(n int) bool { return r.Intn(n) == 0 }

func (r *random) key() []byte {
	// No key at all, which is refused nearly everywhere.
	if r.chance(60) {
		return nil
	}
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
