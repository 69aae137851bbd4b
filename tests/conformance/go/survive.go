package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// The journal of a client whose server is killed again and again. Somebody else does the killing,
// and says on standard input what is to be done:
//
//	load    write from now on; returns at once, and goes on until the server is gone
//	check   the server is back: hold what it shows against the journal
//
// Each lane writes to keys of its own, one call at a time, so that it knows their state but for the
// one call that has had no answer. Watches that began before the first kill go on all the time.

const (
	lanes       = 24
	keysOfALane = 12
	root        = "survive/"
	answerIn    = time.Minute
)

// pair is what is known of a key that exists.
type pair struct {
	value                     string
	created, changed, version int64
	lease                     int64
}

func known(kv *mvccpb.KeyValue) pair {
	return pair{string(kv.Value), kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease}
}

// change is what a call does to the keys of its lane, all of it or nothing.
type change struct {
	what string
	puts map[string]pair // the revisions are those of the answer
	gone []string
	// The lane's lease afterwards, and one that ends.
	lease, ended int64
}

type lane struct {
	s      *survivor
	number int
	chance *rand.Rand
	count  int
	keys   map[string]pair
	lease  int64
	open   *change
}

type survivor struct {
	client *clientv3.Client
	lanes  []*lane
	// The newest revision that any answer has named, and what was acknowledged.
	newest, acknowledged, leases atomic.Int64
	stop                         atomic.Bool
	running                      sync.WaitGroup
	tails                        []*tail
	term                         uint64
	// What the last check saw.
	checked  int64
	snapshot map[string]pair
}

func fault(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "FAULT: "+format+"\n", args...)
	os.Exit(1)
}

func quick(endpoint string) *clientv3.Client {
	// The server is away for moments alone: not a second between tries.
	again := grpc.ConnectParams{MinConnectTimeout: time.Second,
		Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond}}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 20 * time.Second, Logger: zap.NewNop(),
		// History told in one piece may be longer than what gRPC takes unless told otherwise.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(again), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1 << 30))}})
	if err != nil {
		fault("no client: %v", err)
	}
	return client
}

func (s *survivor) saw(revision int64) {
	for {
		newest := s.newest.Load()
		if revision <= newest || s.newest.CompareAndSwap(newest, revision) {
			return
		}
	}
}

func (l *lane) prefix() string { return fmt.Sprintf("%s%02d/", root, l.number) }

func (l *lane) key() string { return fmt.Sprintf("%s%03d", l.prefix(), l.chance.Intn(keysOfALane)) }

func (l *lane) put(c *change, key string, lease int64) clientv3.Op {
	l.count++
	value := fmt.Sprintf("%d:%d:", l.number, l.count)
	// Mostly small, sometimes over several pages.
	size := l.chance.Intn(300)
	if l.chance.Intn(40) == 0 {
		size = l.chance.Intn(40000)
	}
	value += string(make([]byte, size))
	before := l.keys[key]
	c.puts[key] = pair{value: value, created: before.created, version: before.version + 1, lease: lease}
	if lease != 0 {
		return clientv3.OpPut(key, value, clientv3.WithLease(clientv3.LeaseID(lease)))
	}
	return clientv3.OpPut(key, value)
}

// step makes one call; false if it got no answer.
func (l *lane) step(ctx context.Context) bool {
	s := l.s
	c := &change{puts: map[string]pair{}, lease: l.lease}
	l.open = c
	floor := s.newest.Load()
	var revision int64
	var err error
	key := l.key()
	switch n := l.chance.Intn(20); {
	case n < 8:
		c.what = "put"
		var answer clientv3.OpResponse
		if answer, err = s.client.Do(ctx, l.put(c, key, 0)); err == nil {
			revision = answer.Put().Header.Revision
		}
	case n < 11:
		c.what = "delete"
		_, there := l.keys[key]
		if there {
			c.gone = []string{key}
		}
		var answer *clientv3.DeleteResponse
		if answer, err = s.client.Delete(ctx, key); err == nil {
			revision = answer.Header.Revision
			if (answer.Deleted == 1) != there {
				fault("lane %d: %d keys deleted, the key is there: %v", l.number, answer.Deleted, there)
			}
		}
	case n < 14:
		c.what = "txn"
		other := l.key()
		if other == key {
			other += "x"
		}
		ops := []clientv3.Op{l.put(c, key, 0)}
		if _, there := l.keys[other]; there {
			c.gone = []string{other}
			ops = append(ops, clientv3.OpDelete(other))
		} else {
			ops = append(ops, l.put(c, other, 0))
		}
		var answer *clientv3.TxnResponse
		answer, err = s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", l.keys[key].changed)).
			Then(ops...).Else(clientv3.OpGet(key)).Commit()
		if err == nil {
			revision = answer.Header.Revision
			if !answer.Succeeded {
				fault("lane %d: %s is not as it was left: %v", l.number, key, answer.Responses)
			}
		}
	case n < 15 && l.lease == 0:
		c.what, c.lease = "grant", int64(l.number)<<32+int64(l.count)+1
		l.count++
		var answer *clientv3.LeaseGrantResponse
		lease := clientv3.LeaseID(c.lease)
		if answer, err = grant(ctx, s.client, lease, 3600); err == nil {
			revision = answer.ResponseHeader.Revision
			s.leases.Add(1)
		}
	case n < 15:
		c.what, c.lease, c.ended = "revoke", 0, l.lease
		for key, pair := range l.keys {
			if pair.lease == l.lease {
				c.gone = append(c.gone, key)
			}
		}
		var answer *clientv3.LeaseRevokeResponse
		if answer, err = s.client.Revoke(ctx, clientv3.LeaseID(l.lease)); err == nil {
			revision = answer.Header.Revision
		}
	case n < 17 && l.lease != 0:
		c.what = "put with a lease"
		var answer clientv3.OpResponse
		if answer, err = s.client.Do(ctx, l.put(c, key, l.lease)); err == nil {
			revision = answer.Put().Header.Revision
		}
	default:
		c.what = "get"
		var answer *clientv3.GetResponse
		if answer, err = s.client.Get(ctx, key); err == nil {
			revision = answer.Header.Revision
			before, there := l.keys[key]
			if there != (len(answer.Kvs) == 1) || there && known(answer.Kvs[0]) != before {
				fault("lane %d reads %v instead of its own write %v", l.number, answer.Kvs, before)
			}
		}
	}
	if err != nil {
		return false
	}
	if revision < floor {
		fault("lane %d: %s at revision %d, and %d had been told", l.number, c.what, revision, floor)
	}
	if len(c.puts) > 0 || len(c.gone) > 0 {
		l.settle(revision)
	} else {
		l.lease, l.open = c.lease, nil
	}
	s.saw(revision)
	s.acknowledged.Add(1)
	return true
}

// settle takes the open change for done at a revision.
func (l *lane) settle(revision int64) {
	for key, pair := range l.open.puts {
		pair.changed = revision
		if pair.version == 1 {
			pair.created = revision
		}
		l.keys[key] = pair
	}
	for _, key := range l.open.gone {
		delete(l.keys, key)
	}
	l.lease, l.open = l.open.lease, nil
}

func (s *survivor) load() {
	s.stop.Store(false)
	for _, l := range s.lanes {
		s.running.Add(1)
		go func() {
			defer s.running.Done()
			ctx, cancel := context.WithTimeout(context.Background(), answerIn)
			defer cancel()
			for !s.stop.Load() && l.step(ctx) {
			}
			if ctx.Err() != nil {
				fault("lane %d: no answer in %v", l.number, answerIn)
			}
		}()
	}
}

func (s *survivor) get(prefix string, options ...clientv3.OpOption) (map[string]pair, int64) {
	ctx, cancel := context.WithTimeout(context.Background(), answerIn)
	defer cancel()
	// A try may meet the connection that the kill has broken.
	for {
		answer, err := s.client.Get(ctx, prefix, append(options, clientv3.WithPrefix())...)
		if err != nil {
			if ctx.Err() != nil {
				fault("no answer to a read: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if answer.Header.RaftTerm < s.term {
			fault("the term fell from %d to %d", s.term, answer.Header.RaftTerm)
		}
		s.term = answer.Header.RaftTerm
		shown := map[string]pair{}
		for _, kv := range answer.Kvs {
			shown[string(kv.Key)] = known(kv)
		}
		return shown, answer.Header.Revision
	}
}

// check holds what the server shows of a lane against the journal, and finds out what has become of
// the call without an answer: the process that might have done it is gone.
func (l *lane) check(shown map[string]pair) {
	if maps.Equal(shown, l.keys) {
		if l.open != nil && len(l.open.puts) == 0 && len(l.open.gone) == 0 {
			l.leaseAfter()
		}
		l.open = nil
		return
	}
	if l.open == nil {
		fault("lane %d: %s", l.number, difference(l.keys, shown))
	}
	what := l.open.what
	var revision int64
	for key := range l.open.puts {
		revision = shown[key].changed
	}
	before := maps.Clone(l.keys)
	l.settle(revision)
	if !maps.Equal(shown, l.keys) {
		fault("lane %d: an unanswered %s is neither done nor not done:\n%s\n%s", l.number, what,
			difference(before, shown), difference(l.keys, shown))
	}
}

// leaseAfter finds out whether an unanswered grant, or the end of a lease without keys, took place.
func (l *lane) leaseAfter() {
	lease := max(l.open.lease, l.open.ended)
	if lease == 0 {
		return
	}
	if l.s.left(lease).TTL > 0 {
		l.lease = lease
	} else {
		l.lease = 0
	}
}

func (s *survivor) left(lease int64) *clientv3.LeaseTimeToLiveResponse {
	ctx, cancel := context.WithTimeout(context.Background(), answerIn)
	defer cancel()
	answer, err := s.client.TimeToLive(ctx, clientv3.LeaseID(lease), clientv3.WithAttachedKeys())
	if err != nil {
		fault("no answer about a lease: %v", err)
	}
	return answer
}

func difference(expected, shown map[string]pair) string {
	text := ""
	for key, pair := range expected {
		if shown[key] != pair {
			text += fmt.Sprintf("%s was %v, is %v; ", key, brief(pair), brief(shown[key]))
		}
	}
	for key := range shown {
		if _, there := expected[key]; !there {
			text += fmt.Sprintf("%s was not there, is %v; ", key, brief(shown[key]))
		}
	}
	return text
}

func brief(p pair) pair {
	p.value = p.value[:min(len(p.value), 12)]
	return p
}

func (s *survivor) check() {
	s.stop.Store(true)
	s.running.Wait()
	shown, revision := s.get(root)
	if revision < s.newest.Load() {
		fault("the revision fell from %d to %d", s.newest.Load(), revision)
	}
	s.saw(revision)
	if s.checked > 0 {
		past, _ := s.get(root, clientv3.WithRev(s.checked))
		if !maps.Equal(past, s.snapshot) {
			fault("revision %d was another one before: %s", s.checked, difference(s.snapshot, past))
		}
	}
	for _, l := range s.lanes {
		mine := map[string]pair{}
		for key, pair := range shown {
			if len(key) > len(l.prefix()) && key[:len(l.prefix())] == l.prefix() {
				mine[key] = pair
			}
		}
		l.check(mine)
		l.checkLease()
	}
	// The watches have to come to a mark that is written now, without a gap.
	ctx, cancel := context.WithTimeout(context.Background(), answerIn)
	defer cancel()
	mark, err := s.client.Put(ctx, root+"mark", fmt.Sprint(s.acknowledged.Load()))
	if err != nil {
		fault("no answer to the mark: %v", err)
	}
	s.saw(mark.Header.Revision)
	shown, revision = s.get(root)
	told := s.tails[0].upTo(mark.Header.Revision)
	for _, t := range s.tails {
		t.upTo(mark.Header.Revision)
		if !maps.Equal(t.model, shown) {
			fault("a watch told something else than a read: %s", difference(shown, t.model))
		}
	}
	// A watch that begins at the last check hears what the others have heard.
	fresh := newTail(s.client, s.checked+1)
	fresh.upTo(mark.Header.Revision)
	fresh.cancel()
	if !slices.Equal(fresh.told, told) {
		fault("a watch from revision %d on hears %d events, one that was there heard %d", s.checked+1, len(fresh.told), len(told))
	}
	if s.checked > 0 {
		if _, err := s.client.Compact(ctx, s.checked); err != nil {
			fault("compaction at %d: %v", s.checked, err)
		}
	}
	events := 0
	for _, t := range s.tails {
		events += t.events
		t.told = nil
	}
	s.checked, s.snapshot = revision, shown
	fmt.Printf("checked acknowledged=%d leases=%d events=%d revision=%d\n", s.acknowledged.Load(), s.leases.Load(), events, revision)
}

func (l *lane) checkLease() {
	if l.lease == 0 {
		return
	}
	answer := l.s.left(l.lease)
	var expected, attached []string
	for key, pair := range l.keys {
		if pair.lease == l.lease {
			expected = append(expected, key)
		}
	}
	for _, key := range answer.Keys {
		attached = append(attached, string(key))
	}
	slices.Sort(expected)
	slices.Sort(attached)
	if answer.GrantedTTL != 3600 || answer.TTL < 3000 || !slices.Equal(expected, attached) {
		fault("lane %d: lease %x is not as it was left: %v, keys %v", l.number, l.lease, answer, expected)
	}
}

func survive(endpoint string, seed int64) {
	s := &survivor{client: quick(endpoint)}
	for number := range lanes {
		s.lanes = append(s.lanes, &lane{s: s, number: number, keys: map[string]pair{},
			chance: rand.New(rand.NewSource(seed + int64(number)))})
	}
	// Two that share a stream, and one with a stream of its own.
	s.tails = []*tail{newTail(s.client, 1), newTail(s.client, 1), newTail(quick(endpoint), 1)}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch lines.Text() {
		case "load":
			s.load()
			fmt.Println("loading")
		case "check":
			s.check()
		default:
			fault("unknown: %s", lines.Text())
		}
	}
}
