package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.etcd.io/etcd/client/v3/snapshot"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// user is one of etcd's packages in use: each step fails with a word, and says its name if it holds.
type user struct {
	ctx    context.Context
	client *clientv3.Client
}

// must ends the step.
func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// same holds what came against what had to come.
func same(what string, came, due any) {
	if words(came) != words(due) {
		panic(fmt.Errorf("%s: %v came, due was %v", what, came, due))
	}
}

func step(name string, f func()) {
	defer func() {
		if failed := recover(); failed != nil {
			fmt.Fprintf(os.Stderr, "FAULT: %s: %v\n", name, failed)
			os.Exit(1)
		}
	}()
	f()
	fmt.Println("ok", name)
}

func (u *user) value(key string) string {
	answer := must(u.client.Get(u.ctx, key))
	if len(answer.Kvs) == 0 {
		return "nothing"
	}
	return string(answer.Kvs[0].Value)
}

func (u *user) session(ttl int) *concurrency.Session {
	return must(concurrency.NewSession(u.client, concurrency.WithTTL(ttl)))
}

// event takes the next response of a watch that is not about progress.
func (u *user) event(watch clientv3.WatchChan) *clientv3.Event {
	for {
		select {
		case response, open := <-watch:
			if !open {
				panic("the watch ended")
			}
			check(response.Err())
			if len(response.Events) > 0 {
				return response.Events[0]
			}
		case <-u.ctx.Done():
			panic("no event")
		}
	}
}

func (u *user) basics() {
	created := must(u.client.Put(u.ctx, "p/a", "1")).Header.Revision
	must(u.client.Put(u.ctx, "p/b", "2"))
	page := must(u.client.Get(u.ctx, "p/", clientv3.WithPrefix(), clientv3.WithLimit(1)))
	same("page", words(len(page.Kvs), page.More, page.Count), "1 true 2")
	last := must(u.client.Get(u.ctx, "p/", clientv3.WithLastCreate()...))
	same("last created", string(last.Kvs[0].Key), "p/b")
	old := must(u.client.Put(u.ctx, "p/a", "3", clientv3.WithPrevKV()))
	same("before", string(old.PrevKv.Value), "1")
	past := must(u.client.Get(u.ctx, "p/a", clientv3.WithRev(created)))
	same("past", string(past.Kvs[0].Value), "1")
	local := must(u.client.Get(u.ctx, "p/a", clientv3.WithSerializable(), clientv3.WithKeysOnly()))
	same("keys only", string(local.Kvs[0].Value), "")
	_, err := u.client.Get(u.ctx, "p/a", clientv3.WithRev(created+1000))
	same("future", err, rpctypes.ErrFutureRev)
	must(u.client.Compact(u.ctx, created+1, clientv3.WithCompactPhysical()))
	_, err = u.client.Get(u.ctx, "p/a", clientv3.WithRev(created))
	same("compacted", err, rpctypes.ErrCompacted)
	_, err = u.client.Put(u.ctx, "", "")
	same("no key", err, rpctypes.ErrEmptyKey)
	gone := must(u.client.Delete(u.ctx, "p/", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	same("deleted", words(gone.Deleted, len(gone.PrevKvs)), "2 2")
}

func (u *user) watching() {
	watcher := clientv3.NewWatcher(u.client)
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(u.ctx))
	all := watcher.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	same("created", (<-all).Created, true)
	deletes := watcher.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithFilterPut(), clientv3.WithFragment())
	first := must(u.client.Put(u.ctx, "w/a", "1")).Header.Revision
	must(u.client.Delete(u.ctx, "w/a"))
	put := u.event(all)
	same("put", words(put.IsCreate(), put.Kv.ModRevision), words(true, first))
	gone := u.event(all)
	same("delete", words(gone.Type, string(gone.PrevKv.Value)), "DELETE 1")
	same("filtered", u.event(deletes).Type, mvccpb.DELETE)
	check(watcher.RequestProgress(ctx))
	for response := range all {
		check(response.Err())
		if response.IsProgressNotify() {
			same("progress", response.Header.Revision, first+1)
			break
		}
	}
	again := u.client.Watch(u.ctx, "w/a", clientv3.WithRev(first))
	same("history", u.event(again).Kv.ModRevision, first)
	must(u.client.Compact(u.ctx, first+1))
	late := u.client.Watch(u.ctx, "w/a", clientv3.WithRev(first))
	answer := <-late
	same("compacted", words(answer.Err(), answer.CompactRevision), words(rpctypes.ErrCompacted, first+1))
	cancel()
	for range all {
	}
	check(watcher.Close())
}

func (u *user) leases() {
	lease := must(u.client.Grant(u.ctx, 1))
	same("least time", lease.TTL, 2)
	must(u.client.Put(u.ctx, "l/a", "1", clientv3.WithLease(lease.ID)))
	watch := u.client.Watch(u.ctx, "l/a", clientv3.WithRev(lease.Revision+1))
	same("put", u.event(watch).Type, mvccpb.PUT)
	kept := must(u.client.Grant(u.ctx, 2))
	alive := must(u.client.KeepAlive(u.ctx, kept.ID))
	same("kept", (<-alive).TTL, 2)
	same("kept once", must(u.client.KeepAliveOnce(u.ctx, lease.ID)).TTL, 2)
	left := must(u.client.TimeToLive(u.ctx, lease.ID, clientv3.WithAttachedKeys()))
	same("keys", fmt.Sprintf("%s", left.Keys), "[l/a]")
	// Nobody renews the first one from here on.
	same("its end", u.event(watch).Type, mvccpb.DELETE)
	same("gone", must(u.client.TimeToLive(u.ctx, lease.ID)).TTL, -1)
	_, err := u.client.KeepAliveOnce(u.ctx, lease.ID)
	same("renewed too late", err, rpctypes.ErrLeaseNotFound)
	same("the other is kept", must(u.client.TimeToLive(u.ctx, kept.ID)).TTL >= 0, true)
	listed := must(u.client.Leases(u.ctx))
	same("listed", slices.ContainsFunc(listed.Leases, func(l clientv3.LeaseStatus) bool { return l.ID == kept.ID }), true)
	must(u.client.Revoke(u.ctx, kept.ID))
	for range alive {
	}
}

func (u *user) mutex() {
	one, other := u.session(5), u.session(5)
	held := concurrency.NewMutex(one, "/mutex")
	wanted := concurrency.NewMutex(other, "/mutex")
	check(held.Lock(u.ctx))
	same("taken", wanted.TryLock(u.ctx), concurrency.ErrLocked)
	owner := must(u.client.Txn(u.ctx).If(held.IsOwner()).Commit())
	same("owner", owner.Succeeded, true)
	got := make(chan error)
	go func() { got <- wanted.Lock(u.ctx) }()
	select {
	case <-got:
		panic("two hold it")
	case <-time.After(50 * time.Millisecond):
	}
	check(held.Unlock(u.ctx))
	check(<-got)
	// Whose session ends lets go.
	third := concurrency.NewMutex(one, "/mutex")
	go func() { got <- third.Lock(u.ctx) }()
	check(other.Close())
	check(<-got)
	check(one.Close())
	<-one.Done()
	count, locker := 0, u.session(5)
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			lock := concurrency.NewLocker(u.session(5), "/locker")
			lock.Lock()
			count++
			lock.Unlock()
		}()
	}
	all.Wait()
	same("counted under the lock", count, 8)
	check(locker.Close())
}

func (u *user) election() {
	one, other := u.session(5), u.session(5)
	first, second := concurrency.NewElection(one, "/election"), concurrency.NewElection(other, "/election")
	_, err := first.Leader(u.ctx)
	same("nobody", err, concurrency.ErrElectionNoLeader)
	ctx, cancel := context.WithCancel(u.ctx)
	defer cancel()
	seen := first.Observe(ctx)
	check(first.Campaign(u.ctx, "one"))
	same("seen", string((<-seen).Kvs[0].Value), "one")
	elected := make(chan error)
	go func() { elected <- second.Campaign(u.ctx, "two") }()
	check(first.Proclaim(u.ctx, "still one"))
	same("seen", string((<-seen).Kvs[0].Value), "still one")
	same("leader", string(must(second.Leader(u.ctx)).Kvs[0].Value), "still one")
	resumed := concurrency.ResumeElection(one, "/election", first.Key(), first.Rev())
	check(resumed.Resign(u.ctx))
	check(<-elected)
	same("seen", string((<-seen).Kvs[0].Value), "two")
	same("no longer", first.Proclaim(u.ctx, "no"), concurrency.ErrElectionNotLeader)
	check(other.Close())
	check(one.Close())
}

func (u *user) stm() {
	for _, level := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable,
		concurrency.RepeatableReads, concurrency.ReadCommitted} {
		must(u.client.Put(u.ctx, "stm/a", "0"))
		var all sync.WaitGroup
		for range 6 {
			all.Add(1)
			go func() {
				defer all.Done()
				must(concurrency.NewSTM(u.client, func(s concurrency.STM) error {
					s.Put("stm/a", s.Get("stm/a")+"+")
					if s.Rev("stm/b") > 0 {
						s.Del("stm/b")
					} else {
						s.Put("stm/b", "x")
					}
					return nil
				}, concurrency.WithIsolation(level), concurrency.WithAbortContext(u.ctx)))
			}()
		}
		all.Wait()
		// Only the weakest may lose one.
		if level != concurrency.ReadCommitted {
			same("each counted", u.value("stm/a"), "0++++++")
			same("six times over", u.value("stm/b"), "nothing")
		}
		must(u.client.Delete(u.ctx, "stm/b"))
	}
}

func (u *user) namespaces() {
	kv := namespace.NewKV(u.client.KV, "ns/")
	watch := namespace.NewWatcher(u.client.Watcher, "ns/").Watch(u.ctx, "", clientv3.WithPrefix())
	must(kv.Put(u.ctx, "a", "1"))
	same("event", string(u.event(watch).Kv.Key), "a")
	same("stored", u.value("ns/a"), "1")
	same("seen", string(must(kv.Get(u.ctx, "", clientv3.WithPrefix())).Kvs[0].Key), "a")
	answer := must(kv.Txn(u.ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).Then(clientv3.OpDelete("a", clientv3.WithPrevKV()), clientv3.OpGet("a")).Commit())
	same("txn", words(answer.Succeeded, string(answer.Responses[0].GetResponseDeleteRange().PrevKvs[0].Key), len(answer.Responses[1].GetResponseRange().Kvs)), "true a 0")
	lease := must(u.client.Grant(u.ctx, 60))
	must(kv.Put(u.ctx, "b", "2", clientv3.WithLease(lease.ID)))
	left := must(namespace.NewLease(u.client.Lease, "ns/").TimeToLive(u.ctx, lease.ID, clientv3.WithAttachedKeys()))
	same("keys", fmt.Sprintf("%s", left.Keys), "[b]")
}

func (u *user) leasing() {
	one, closeOne, err := leasing.NewKV(u.client, "leasing/")
	check(err)
	defer closeOne()
	other, closeOther, err := leasing.NewKV(u.client, "leasing/")
	check(err)
	defer closeOther()
	must(one.Put(u.ctx, "k", "1"))
	same("read", string(must(one.Get(u.ctx, "k")).Kvs[0].Value), "1")
	// From the cache now; a write by the other takes the ownership away.
	same("cached", string(must(one.Get(u.ctx, "k")).Kvs[0].Value), "1")
	must(other.Put(u.ctx, "k", "2"))
	same("told", string(must(one.Get(u.ctx, "k")).Kvs[0].Value), "2")
	answer := must(other.Txn(u.ctx).If(clientv3.Compare(clientv3.Value("k"), "=", "2")).Then(clientv3.OpDelete("k")).Commit())
	same("txn", answer.Succeeded, true)
	same("gone", len(must(one.Get(u.ctx, "k")).Kvs), 0)
}

func (u *user) mirroring() {
	for n := range 1500 {
		must(u.client.Put(u.ctx, fmt.Sprintf("m/%05d", n), "v"))
	}
	syncer := mirror.NewSyncer(u.client, "m/", 0)
	pages, failed := syncer.SyncBase(u.ctx)
	count := 0
	for page := range pages {
		count += len(page.Kvs)
	}
	check(<-failed)
	same("copied", count, 1500)
	updates := syncer.SyncUpdates(u.ctx)
	must(u.client.Put(u.ctx, "m/00001", "w"))
	same("update", string(u.event(updates).Kv.Value), "w")
}

// snapshots saves a backup as etcdctl does; what is in it tests/conformance/snapshots.rs looks at.
func (u *user) snapshots() {
	place := filepath.Join(must(os.MkdirTemp("", "snapshot")), "backup")
	defer os.RemoveAll(filepath.Dir(place))
	version := must(snapshot.SaveWithVersion(u.ctx, zap.NewNop(), clientv3.Config{Endpoints: u.client.Endpoints(), DialTimeout: 10 * time.Second}, place))
	same("storage", version[:3], "3.7")
	if size := must(os.Stat(place)).Size(); size < 4096 {
		fault("a backup of %d bytes", size)
	}
}

func (u *user) naming() {
	manager := must(endpoints.NewManager(u.client, "service"))
	updates := must(manager.NewWatchChannel(u.ctx))
	lease := must(u.client.Grant(u.ctx, 60))
	address := strings.TrimPrefix(u.client.Endpoints()[0], "http://")
	check(manager.AddEndpoint(u.ctx, "service/one", endpoints.Endpoint{Addr: address}, clientv3.WithLease(lease.ID)))
	for update := range updates {
		if len(update) > 0 {
			same("added", update[0].Endpoint.Addr, address)
			break
		}
	}
	same("listed", len(must(manager.List(u.ctx))), 1)
	builder := must(resolver.NewBuilder(u.client))
	conn := must(grpc.NewClient("etcd:///service", grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials())))
	same("healthy", must(healthpb.NewHealthClient(conn).Check(u.ctx, &healthpb.HealthCheckRequest{})).Status, healthpb.HealthCheckResponse_SERVING)
	check(conn.Close())
	check(manager.DeleteEndpoint(u.ctx, "service/one"))
	for update := range updates {
		if len(update) > 0 {
			same("taken away", update[0].Op, endpoints.Delete)
			break
		}
	}
}

func (u *user) ordered() {
	kv := ordering.NewKV(u.client.KV, func(clientv3.Op, clientv3.OpResponse, int64) error {
		return errors.New("an older revision came behind a newer one")
	})
	for n := range 20 {
		must(u.client.Put(u.ctx, "o", words(n)))
		same("read", string(must(kv.Get(u.ctx, "o", clientv3.WithSerializable())).Kvs[0].Value), n)
		must(kv.Txn(u.ctx).Then(clientv3.OpGet("o")).Commit())
	}
}

func (u *user) recipes() {
	queue := recipe.NewQueue(u.client, "queue")
	for n := range 5 {
		check(queue.Enqueue(words(n)))
	}
	for n := range 5 {
		same("in order", must(queue.Dequeue()), n)
	}
	first := recipe.NewPriorityQueue(u.client, "priorities")
	for _, n := range []uint16{3, 1, 2} {
		check(first.Enqueue(words(n), n))
	}
	for n := range 3 {
		same("by priority", must(first.Dequeue()), n+1)
	}
	barrier := recipe.NewBarrier(u.client, "barrier")
	check(barrier.Hold())
	passed := make(chan error)
	go func() { passed <- barrier.Wait() }()
	check(barrier.Release())
	check(<-passed)
	for range 3 {
		go func() {
			double := recipe.NewDoubleBarrier(u.session(5), "double", 3)
			passed <- errors.Join(double.Enter(), double.Leave())
		}()
	}
	for range 3 {
		check(<-passed)
	}
	reader, writer := recipe.NewRWMutex(u.session(5), "rw"), recipe.NewRWMutex(u.session(5), "rw")
	check(reader.RLock())
	go func() { passed <- writer.Lock() }()
	check(reader.RUnlock())
	check(<-passed)
	check(writer.Unlock())
}

func (u *user) cluster() {
	members := must(u.client.MemberList(u.ctx))
	same("members", len(members.Members), 1)
	check(u.client.Sync(u.ctx))
	status := must(u.client.Status(u.ctx, u.client.Endpoints()[0]))
	same("leader", status.Leader, members.Members[0].ID)
	same("release", strings.HasPrefix(status.Version, "3.7."), true)
	same("alarms", len(must(u.client.AlarmList(u.ctx)).Alarms), 0)
	must(u.client.Defragment(u.ctx, u.client.Endpoints()[0]))
	same("auth", must(u.client.AuthStatus(u.ctx)).Enabled, false)
}

func packages(client *clientv3.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	u := &user{ctx, client}
	step("clientv3: keys", u.basics)
	step("clientv3: watches", u.watching)
	step("clientv3: leases", u.leases)
	step("clientv3: cluster, maintenance, auth", u.cluster)
	step("concurrency: sessions and mutexes", u.mutex)
	step("concurrency: elections", u.election)
	step("concurrency: software transactional memory", u.stm)
	step("namespace", u.namespaces)
	step("leasing", u.leasing)
	step("ordering", u.ordered)
	step("mirror", u.mirroring)
	step("naming", u.naming)
	step("recipes", u.recipes)
	step("kubernetes", u.kubernetes)
	step("snapshot", u.snapshots)
}

// words prints what is given, with space between.
func words(parts ...any) string { return strings.TrimSuffix(fmt.Sprintln(parts...), "\n") }
