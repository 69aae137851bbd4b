// etcd3, the client for Node.js, in use: use.js HOST:PORT. A step that holds says its name.
'use strict';

const assert = require('node:assert/strict');
const { Etcd3, EtcdLockFailedError } = require('etcd3');

const etcd = new Etcd3({ hosts: `http://${process.argv[2]}` });
// The library's isolation levels, which it has for TypeScript alone.
const [snapshot, serializable, repeatable] = [0, 1, 2];
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const heard = (emitter, event) => new Promise((done) => emitter.once(event, done));

const steps = {
  async keys() {
    await etcd.put('node/a').value('1');
    assert.equal(await etcd.get('node/a').string(), '1');
    assert.equal((await etcd.put('node/a').value(2).getPrevious()).value.toString(), '1');
    assert.equal(await etcd.get('node/a').number(), 2);
    for (let n = 0; n < 12; n++) await etcd.put(`node/r/${String(n).padStart(2, '0')}`).value(n);
    const all = etcd.getAll().prefix('node/r/');
    assert.equal(await all.count(), 12);
    const last = await etcd.getAll().prefix('node/r/').sort('Key', 'Descend').limit(2).keys();
    assert.deepEqual(last, ['node/r/11', 'node/r/10']);
    const { header } = await etcd.get('node/a').exec();
    await etcd.put('node/a').value('3');
    const old = await etcd.get('node/a').revision(header.revision).string();
    assert.equal(old, '2');
    assert.equal((await etcd.delete().prefix('node/r/')).deleted, '12');
    assert.equal(await etcd.get('node/none'), null);
    await assert.rejects(async () => etcd.get('node/a').revision(1e9).exec());
  },

  async transactions() {
    const outcome = await etcd.if('node/t', 'Create', '==', 0)
      .and('node/t', 'Lease', '==', 0)
      .then(etcd.put('node/t').value('1'))
      .else(etcd.get('node/t'))
      .commit();
    assert.equal(outcome.succeeded, true);
    const again = await etcd.if('node/t', 'Version', '>', 1).then(etcd.delete().key('node/t')).else(etcd.get('node/t')).commit();
    assert.equal(again.succeeded, false);
    assert.equal(again.responses[0].response_range.kvs[0].value.toString(), '1');
    for (const isolation of [snapshot, serializable, repeatable]) {
      await etcd.put('node/n').value('0');
      await Promise.all(Array.from({ length: 4 }, () => etcd.stm({ isolation, retries: 50 }).transact(async (tx) => {
        const n = await tx.get('node/n').number();
        await tx.put('node/n').value(n + 1);
      })));
      assert.equal(await etcd.get('node/n').number(), 4);
    }
  },

  async watches() {
    const watcher = await etcd.watch().prefix('node/w/').withPreviousKV().create();
    let event = heard(watcher, 'put');
    await etcd.put('node/w/a').value('1');
    assert.equal((await event).value.toString(), '1');
    event = new Promise((done) => watcher.once('delete', (kv, before) => done(before)));
    const { header } = await etcd.delete().key('node/w/a');
    assert.equal((await event).value.toString(), '1');
    await watcher.cancel();
    const past = etcd.watch().key('node/w/a').startRevision(String(header.revision - 1)).watcher();
    await Promise.all([heard(past, 'put'), heard(past, 'delete')]);
    await past.cancel();
  },

  async leases() {
    const lease = etcd.lease(10);
    await lease.put('node/l').value('1');
    const id = await lease.grant();
    await lease.keepaliveOnce();
    const left = await etcd.leaseClient.leaseTimeToLive({ ID: id, keys: true });
    assert.equal(left.keys.toString(), 'node/l');
    await lease.revoke();
    assert.equal(await etcd.get('node/l'), null);
    const short = etcd.lease(1, { autoKeepAlive: false });
    const watcher = await etcd.watch().key('node/l').create();
    await short.put('node/l').value('2');
    await heard(watcher, 'delete');
    await watcher.cancel();
  },

  async locks() {
    const held = await etcd.lock('node/lock').ttl(10).acquire();
    await assert.rejects(async () => etcd.lock('node/lock').acquire(), EtcdLockFailedError);
    await held.release();
    assert.equal(await etcd.lock('node/lock').do(async () => 'done'), 'done');
  },

  async elections() {
    const election = etcd.election('node/election', 10);
    const observer = await election.observe();
    const campaign = election.campaign('one');
    await heard(campaign, 'elected');
    while (observer.leader() !== 'one') await pause(10);
    await campaign.proclaim('still one');
    while (observer.leader() !== 'still one') await pause(10);
    await campaign.resign();
    await observer.cancel();
  },

  async namespaces() {
    const inside = etcd.namespace('node/ns/');
    await inside.put('a').value('1');
    assert.equal(await etcd.get('node/ns/a').string(), '1');
    assert.deepEqual(await inside.getAll().strings(), { a: '1' });
  },

  async member() {
    const status = await etcd.maintenance.status();
    assert.match(status.version, /^3\.7\./);
    assert.equal((await etcd.cluster.memberList({})).members.length, 1);
    assert.deepEqual((await etcd.maintenance.alarm({ action: 'Get' })).alarms, []);
    await etcd.maintenance.defragment();
  },
};

(async () => {
  for (const [name, step] of Object.entries(steps)) {
    await step();
    console.log(`ok etcd3 for Node.js: ${name}`);
  }
  etcd.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
