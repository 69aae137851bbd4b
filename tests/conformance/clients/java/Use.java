import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.Election;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.Lease;
import io.etcd.jetcd.Lock;
import io.etcd.jetcd.Watch;
import io.etcd.jetcd.election.CampaignResponse;
import io.etcd.jetcd.election.LeaderKey;
import io.etcd.jetcd.election.LeaderResponse;
import io.etcd.jetcd.election.NoLeaderException;
import io.etcd.jetcd.kv.GetResponse;
import io.etcd.jetcd.kv.TxnResponse;
import io.etcd.jetcd.lease.LeaseKeepAliveResponse;
import io.etcd.jetcd.lock.LockResponse;
import io.etcd.jetcd.op.Cmp;
import io.etcd.jetcd.op.CmpTarget;
import io.etcd.jetcd.op.Op;
import io.etcd.jetcd.options.DeleteOption;
import io.etcd.jetcd.options.GetOption;
import io.etcd.jetcd.options.LeaseOption;
import io.etcd.jetcd.options.PutOption;
import io.etcd.jetcd.options.WatchOption;
import io.etcd.jetcd.watch.WatchEvent;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** jetcd in use: Use HOST:PORT. A step that holds says its name. */
public final class Use {
    private static Client client;

    private interface Step {
        void run() throws Exception;
    }

    private static void step(String name, Step step) throws Exception {
        step.run();
        System.out.println("ok jetcd: " + name);
    }

    private static void same(Object came, Object due) {
        if (!Objects.equals(came, due)) {
            throw new AssertionError(came + " came, due was " + due);
        }
    }

    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text.getBytes());
    }

    private static <T> T of(CompletableFuture<T> future) throws Exception {
        return future.get(20, TimeUnit.SECONDS);
    }

    private static void keys() throws Exception {
        KV kv = client.getKVClient();
        long created = of(kv.put(bytes("java/a"), bytes("1"))).getHeader().getRevision();
        String before = of(kv.put(bytes("java/a"), bytes("2"), PutOption.builder().withPrevKV().build())).getPrevKv().getValue().toString();
        same(before, "1");
        for (int n = 0; n < 10; n++) {
            of(kv.put(bytes("java/r/" + n), bytes("" + n)));
        }
        GetOption page = GetOption.builder().isPrefix(true).withLimit(3).withSortField(GetOption.SortTarget.KEY)
            .withSortOrder(GetOption.SortOrder.DESCEND).build();
        GetResponse found = of(kv.get(bytes("java/r/"), page));
        same(found.getKvs().get(0).getKey().toString(), "java/r/9");
        same(found.getKvs().size() + " " + found.getCount() + " " + found.isMore(), "3 10 true");
        same(of(kv.get(bytes("java/a"), GetOption.builder().withRevision(created).build())).getKvs().get(0).getValue().toString(), "1");
        same(of(kv.delete(bytes("java/r/"), DeleteOption.builder().isPrefix(true).withPrevKV(true).build())).getPrevKvs().size(), 10);
        of(kv.compact(created + 1));
        try {
            of(kv.get(bytes("java/a"), GetOption.builder().withRevision(created).build()));
            throw new AssertionError("a compacted revision was read");
        } catch (ExecutionException error) {
            same(error.getCause().getMessage().contains("required revision has been compacted"), true);
        }
    }

    private static void transactions() throws Exception {
        KV kv = client.getKVClient();
        ByteSequence key = bytes("java/t");
        TxnResponse first = of(kv.txn().If(new Cmp(key, Cmp.Op.EQUAL, CmpTarget.version(0)))
            .Then(Op.put(key, bytes("1"), PutOption.DEFAULT)).Else(Op.get(key, GetOption.DEFAULT)).commit());
        same(first.isSucceeded(), true);
        TxnResponse second = of(kv.txn().If(new Cmp(key, Cmp.Op.GREATER, CmpTarget.value(bytes("5"))))
            .Then(Op.delete(key, DeleteOption.DEFAULT)).Else(Op.get(key, GetOption.DEFAULT)).commit());
        same(second.getGetResponses().get(0).getKvs().get(0).getValue().toString(), "1");
    }

    private static void watches() throws Exception {
        BlockingQueue<WatchEvent> events = new LinkedBlockingQueue<>();
        WatchOption option = WatchOption.builder().isPrefix(true).withPrevKV(true).withProgressNotify(true).build();
        Watch.Watcher watcher = client.getWatchClient().watch(bytes("java/w/"), option, response -> events.addAll(response.getEvents()));
        of(client.getKVClient().put(bytes("java/w/a"), bytes("1")));
        long last = of(client.getKVClient().delete(bytes("java/w/a"))).getHeader().getRevision();
        List<String> heard = new ArrayList<>();
        for (int n = 0; n < 2; n++) {
            WatchEvent event = Objects.requireNonNull(events.poll(20, TimeUnit.SECONDS));
            heard.add(event.getEventType() + event.getPrevKV().getValue().toString());
        }
        same(heard.toString(), "[PUT, DELETE1]");
        watcher.close();
        WatchOption past = WatchOption.builder().withRevision(last).withNoPut(true).build();
        watcher = client.getWatchClient().watch(bytes("java/w/a"), past, response -> events.addAll(response.getEvents()));
        same(Objects.requireNonNull(events.poll(20, TimeUnit.SECONDS)).getKeyValue().getModRevision(), last);
        watcher.close();
    }

    private static void leases() throws Exception {
        Lease leases = client.getLeaseClient();
        long id = of(leases.grant(30)).getID();
        of(client.getKVClient().put(bytes("java/l"), bytes("1"), PutOption.builder().withLeaseId(id).build()));
        same(of(leases.keepAliveOnce(id)).getTTL(), 30L);
        same(of(leases.timeToLive(id, LeaseOption.builder().withAttachedKeys().build())).getKeys().get(0).toString(), "java/l");
        CompletableFuture<Long> kept = new CompletableFuture<>();
        StreamObserver<LeaseKeepAliveResponse> observer = new StreamObserver<>() {
            @Override
            public void onNext(LeaseKeepAliveResponse response) {
                kept.complete(response.getTTL());
            }

            @Override
            public void onError(Throwable error) {
                kept.completeExceptionally(error);
            }

            @Override
            public void onCompleted() {}
        };
        try (var alive = leases.keepAlive(id, observer)) {
            same(of(kept), 30L);
        }
        of(leases.revoke(id));
        same(of(client.getKVClient().get(bytes("java/l"))).getCount(), 0L);
    }

    private static long granted() throws Exception {
        return of(client.getLeaseClient().grant(30)).getID();
    }

    private static void locks() throws Exception {
        Lock locks = client.getLockClient();
        long one = granted();
        ByteSequence held = of(locks.lock(bytes("java/lock"), one)).getKey();
        same(held.toString(), "java/lock/" + Long.toHexString(one));
        CompletableFuture<LockResponse> waits = locks.lock(bytes("java/lock"), granted());
        Thread.sleep(200);
        same(waits.isDone(), false);
        of(locks.unlock(held));
        of(locks.unlock(of(waits).getKey()));
    }

    private static void elections() throws Exception {
        Election elections = client.getElectionClient();
        ByteSequence name = bytes("java/election");
        BlockingQueue<String> told = new LinkedBlockingQueue<>();
        elections.observe(name, new Election.Listener() {
            @Override
            public void onNext(LeaderResponse response) {
                told.add(response.getKv().getValue().toString());
            }

            @Override
            public void onError(Throwable error) {
                told.add("error: " + error);
            }

            @Override
            public void onCompleted() {}
        });
        LeaderKey first = of(elections.campaign(name, granted(), bytes("one"))).getLeader();
        same(told.poll(20, TimeUnit.SECONDS), "one");
        CompletableFuture<CampaignResponse> second = elections.campaign(name, granted(), bytes("two"));
        same(of(elections.leader(name)).getKv().getValue().toString(), "one");
        of(elections.proclaim(first, bytes("one again")));
        same(told.poll(20, TimeUnit.SECONDS), "one again");
        same(second.isDone(), false);
        of(elections.resign(first));
        same(told.poll(20, TimeUnit.SECONDS), "two");
        of(elections.resign(of(second).getLeader()));
        try {
            of(elections.leader(name));
            throw new AssertionError("nobody leads");
        } catch (ExecutionException error) {
            same(error.getCause() instanceof NoLeaderException, true);
        }
    }

    private static void member() throws Exception {
        same(of(client.getClusterClient().listMember()).getMembers().size(), 1);
        String address = "http://" + target;
        same(of(client.getMaintenanceClient().statusMember(address)).getVersion().startsWith("3.7."), true);
        same(of(client.getMaintenanceClient().listAlarms()).getAlarms().size(), 0);
        of(client.getMaintenanceClient().defragmentMember(address));
    }

    private static String target;

    public static void main(String[] args) throws Exception {
        target = args[0];
        client = Client.builder().endpoints("http://" + target).build();
        step("keys", Use::keys);
        step("transactions", Use::transactions);
        step("watches", Use::watches);
        step("leases", Use::leases);
        step("locks", Use::locks);
        step("elections", Use::elections);
        step("member", Use::member);
        client.close();
        System.exit(0);
    }
}
