package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What kube-apiserver does with its storage all day: watch caches that are asked for consistent
// lists while objects change, lists in pages, streams of ranges, leases that many objects share, and
// compactors that agree by a key.

const registry = "/registry/"

// cache is a watch cache: what a watch has told, and up to which revision.
type cache struct {
	mu       sync.Mutex
	more     *sync.Cond
	objects  map[string]string
	revision int64
	ctx      context.Context
	watcher  clientv3.Watcher
}

// newCache fills a cache by a stream of ranges, and watches from there.
func (u *user) newCache(prefix string) *cache {
	c := &cache{objects: map[string]string{}, watcher: clientv3.NewWatcher(u.client)}
	c.more = sync.NewCond(&c.mu)
	stream := must(pb.NewKVClient(u.client.ActiveConnection()).RangeStream(u.ctx,
		&pb.RangeRequest{Key: b(prefix), RangeEnd: b(clientv3.GetPrefixRangeEnd(prefix))}))
	for c.revision == 0 {
		chunk := must(stream.Recv()).RangeResponse
		for _, kv := range chunk.Kvs {
			c.objects[string(kv.Key)] = string(kv.Value)
		}
		// The last chunk alone has these.
		if chunk.Header != nil {
			same("all of them", chunk.Count, len(c.objects))
			c.revision = chunk.Header.Revision
		}
	}
	c.ctx = clientv3.WithRequireLeader(u.ctx)
	events := c.watcher.Watch(c.ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(c.revision+1), clientv3.WithPrevKV(), clientv3.WithProgressNotify())
	go func() {
		for response := range events {
			// All is over before the program is.
			if u.ctx.Err() == context.Canceled {
				return
			}
			if err := response.Err(); err != nil {
				fault("the watch of %s ended: %v", prefix, err)
			}
			c.mu.Lock()
			for _, e := range response.Events {
				key := string(e.Kv.Key)
				before, there := c.objects[key]
				if there != (e.PrevKv != nil) || there && string(e.PrevKv.Value) != before {
					fault("%s at %d: before it was %q, told is %v", key, e.Kv.ModRevision, before, e.PrevKv)
				}
				if e.Kv.ModRevision <= c.revision {
					fault("%s at %d: told behind revision %d", key, e.Kv.ModRevision, c.revision)
				}
				if e.Type == clientv3.EventTypeDelete {
					delete(c.objects, key)
				} else {
					c.objects[key] = string(e.Kv.Value)
				}
			}
			// Progress, too, says that everything up to there was told.
			c.revision = max(c.revision, response.Header.Revision)
			c.more.Broadcast()
			c.mu.Unlock()
		}
	}()
	return c
}

// list is a consistent list from the cache: as new as anything acknowledged before it was asked for.
// The progress of the watch is asked for every 100 ms until it comes.
func (c *cache) list(u *user, resource string) map[string]string {
	newest := must(u.client.Get(u.ctx, resource)).Header.Revision
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			check(c.watcher.RequestProgress(c.ctx))
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	late := time.AfterFunc(10*time.Second, func() { fault("the cache does not come to revision %d", newest) })
	defer late.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.revision < newest {
		c.more.Wait()
	}
	seen := map[string]string{}
	for key, value := range c.objects {
		seen[key] = value
	}
	return seen
}

// caches reads consistently from a cache while others write.
func (u *user) caches() {
	const prefix = registry + "configmaps/"
	for n := range 300 {
		must(u.client.Put(u.ctx, fmt.Sprintf("%s%04d", prefix, n), "0"))
	}
	c := u.newCache(prefix)
	// Something that the cache does not hear of moves the revision on.
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Add(1)
	go func() {
		defer others.Done()
		for {
			select {
			case <-stop:
				return
			default:
				must(u.client.Put(u.ctx, registry+"events/x", "x"))
			}
		}
	}()
	began := time.Now()
	for n := 1; n <= 60; n++ {
		key := fmt.Sprintf("%s%04d", prefix, n%300)
		if n%10 == 0 {
			must(u.client.Delete(u.ctx, key))
		} else {
			must(u.client.Put(u.ctx, key, fmt.Sprint(n)))
		}
		value, there := c.list(u, prefix)[key]
		same("what was just written", words(value, there), words(map[bool]string{true: "", false: fmt.Sprint(n)}[n%10 == 0], n%10 != 0))
	}
	close(stop)
	others.Wait()
	// Not even a write that the cache hears of is needed: progress answers within its round.
	if took := time.Since(began); took > 60*time.Second/2 {
		fault("60 consistent lists took %v", took)
	}
	check(c.watcher.Close())
}

// pages lists at one revision while objects come, go and change.
func (u *user) pages() {
	const prefix = registry + "pods/"
	const pods = 1000
	for n := range pods {
		must(u.client.Put(u.ctx, fmt.Sprintf("%s%05d", prefix, n), "old"))
	}
	end := clientv3.GetPrefixRangeEnd(prefix)
	begin, at, seen := prefix, int64(0), 0
	for limit := int64(50); ; limit = min(2*limit, 400) {
		page := must(u.client.Get(u.ctx, begin, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(at)))
		if at == 0 {
			at = page.Header.Revision
		}
		if page.Header.Revision < at {
			fault("the revision fell from %d to %d", at, page.Header.Revision)
		}
		for n, kv := range page.Kvs {
			same("key", string(kv.Key), fmt.Sprintf("%s%05d", prefix, seen+n))
			same("value", string(kv.Value), "old")
		}
		same("of those from here on", page.Count, pods-seen)
		seen += len(page.Kvs)
		same("more", page.More, seen < pods)
		if int64(len(page.Kvs)) == page.Count {
			break
		}
		begin = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
		must(u.client.Delete(u.ctx, fmt.Sprintf("%s%05d", prefix, pods-1-seen%7)))
		must(u.client.Put(u.ctx, fmt.Sprintf("%s%05d", prefix, seen), "new"))
		must(u.client.Put(u.ctx, fmt.Sprintf("%s%05d-new", prefix, seen), "new"))
	}
	same("all of them", seen, pods)
	// The same as a stream, at that revision, though the header is of now.
	stream := must(pb.NewKVClient(u.client.ActiveConnection()).RangeStream(u.ctx, &pb.RangeRequest{Key: b(prefix), RangeEnd: b(end), Revision: at}))
	for seen = 0; ; {
		chunk := must(stream.Recv()).RangeResponse
		for n, kv := range chunk.Kvs {
			same("key", string(kv.Key), fmt.Sprintf("%s%05d", prefix, seen+n))
			same("value", string(kv.Value), "old")
		}
		seen += len(chunk.Kvs)
		if chunk.Header != nil {
			same("in the end", words(chunk.Count, chunk.More, chunk.Header.Revision > at), words(pods, false, true))
			break
		}
	}
	same("all of them in a stream", seen, pods)
	must(u.client.Compact(u.ctx, at+1))
	_, err := u.client.Get(u.ctx, begin, clientv3.WithRange(end), clientv3.WithRev(at))
	same("a page too late", err, rpctypes.ErrCompacted)
	_, err = u.client.Get(u.ctx, prefix, clientv3.WithRev(1<<40))
	same("a page too early", err, rpctypes.ErrFutureRev)
	watch := u.client.Watch(u.ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(at))
	ended := <-watch
	same("a watch too late", words(ended.Err(), ended.CompactRevision), words(rpctypes.ErrCompacted, at+1))
}

// compactors take turns as the replicas of apiserver do, and watch the key they agree by.
func (u *user) compactors() {
	const key = "compact_rev_key"
	watch := u.client.Watch(u.ctx, key)
	won, compacted := 0, []int64{}
	type replica struct{ turn, revision int64 }
	replicas := make([]replica, 3)
	for round := 0; round < 12; round++ {
		must(u.client.Put(u.ctx, registry+"leases/x", fmt.Sprint(round)))
		r := &replicas[round%2]
		if round%5 == 4 {
			r = &replicas[2]
		}
		answer := must(u.client.Txn(u.ctx).If(clientv3.Compare(clientv3.Version(key), "=", r.turn)).
			Then(clientv3.OpPut(key, fmt.Sprint(r.revision))).Else(clientv3.OpGet(key)).Commit())
		before := r.revision
		r.revision = answer.Header.Revision
		if !answer.Succeeded {
			// Another one was faster; its turn is learnt.
			r.turn = answer.Responses[0].GetResponseRange().Kvs[0].Version
			continue
		}
		r.turn++
		won++
		if before == 0 {
			continue
		}
		_, err := u.client.Compact(u.ctx, before)
		same("compacted", err, nil)
		compacted = append(compacted, before)
	}
	if won < 4 || len(compacted) < 2 || !slices.IsSorted(compacted) {
		fault("of 12 rounds %d were won, compacted was %v", won, compacted)
	}
	for n := range won {
		same("turn", u.event(watch).Kv.Version, n+1)
	}
}

// buckets shares leases between events, as long as they have about the same time to live.
func (u *user) buckets() {
	var lease clientv3.LeaseID
	for n := range 250 {
		if n%100 == 0 {
			lease = must(u.client.Grant(u.ctx, 2)).ID
		}
		key := fmt.Sprintf("%sevents/%04d", registry, n)
		answer := must(u.client.Txn(u.ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, "e", clientv3.WithLease(lease))).Commit())
		same("created", answer.Succeeded, true)
	}
	count := func() int64 {
		return must(u.client.Get(u.ctx, registry+"events/", clientv3.WithPrefix(), clientv3.WithCountOnly())).Count
	}
	watch := u.client.Watch(u.ctx, registry+"events/0", clientv3.WithPrefix(), clientv3.WithPrevKV())
	if n := count(); n != 250 && n != 251 {
		fault("%d events", n)
	}
	// Each lease ends in one revision.
	gone := map[int64]int{}
	for total := 0; total < 250; {
		response := <-watch
		check(response.Err())
		for _, e := range response.Events {
			same("ends with what it was", words(e.Type, string(e.PrevKv.Value)), words(clientv3.EventTypeDelete, "e"))
			gone[e.Kv.ModRevision]++
			total++
		}
	}
	sizes := []int{}
	for _, size := range gone {
		sizes = append(sizes, size)
	}
	slices.Sort(sizes)
	same("deleted together", sizes, []int{50, 100, 100})
}

// probes are what apiserver asks to know how its storage is.
func (u *user) probes() {
	same("health", must(u.client.Get(u.ctx, registry+"health")).Count, 0)
	told := must(u.client.Status(u.ctx, u.client.Endpoints()[0]))
	if told.DbSize <= 0 || told.Leader == 0 || len(told.Errors) > 0 || told.Version < "3.7" {
		fault("status: %v", told)
	}
	// A connection for each resource, with a watch each, all under way together.
	var all sync.WaitGroup
	for n := range 150 {
		all.Add(1)
		go func() {
			defer all.Done()
			client := quick(u.client.Endpoints()[0])
			defer client.Close()
			prefix := fmt.Sprintf("%scrd-%d/", registry, n)
			watch := client.Watch(clientv3.WithRequireLeader(u.ctx), prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
			<-watch
			must(client.Put(u.ctx, prefix+"a", "1"))
			same("told", string(u.event(watch).Kv.Value), "1")
		}()
	}
	all.Wait()
}

func apiserver(client *clientv3.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	u := &user{ctx: ctx, client: client}
	step("kube-apiserver: consistent reads from a watch cache", u.caches)
	step("kube-apiserver: pages and streams at one revision", u.pages)
	step("kube-apiserver: compactors", u.compactors)
	step("kube-apiserver: leases shared by events", u.buckets)
	step("kube-apiserver: probes, and a connection for each resource", u.probes)
}
