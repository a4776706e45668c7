import { describe, expect, test } from "bun:test"
import { recordTypes } from "../../src/journal/format.ts"
import { Prng } from "../../src/lib/prng.ts"
import type { SimulatedDisk } from "../sim/simulatedDisk.ts"
import { type Place, records } from "./journalRecords.ts"
import { LoopCluster, learner, voter } from "./loopCluster.ts"

const range = 1

/** Three nodes that have acknowledged a number of puts and are down, all of it in their journals, and sealed. */
function stopped(puts = 12): LoopCluster {
  const cluster = new LoopCluster({ settings: { engine: { memtableBytes: 1 << 20 } } })
  cluster.untilLeader(range)
  for (let i = 0; i < puts; i++) cluster.put(`key ${i}`, `value ${i}`)
  cluster.pass(500)
  for (const id of [1, 2, 3]) stop(cluster, id)
  return cluster
}

function copy(cluster: LoopCluster): LoopCluster {
  const other = new LoopCluster({ founders: [], settings: cluster.settings })
  // Its clients are others.
  Object.assign(other, { founders: cluster.founders, sequence: 10_000 })
  for (const [id, disk] of cluster.disks) other.disks.set(id, disk.clone())
  for (const [key, value] of cluster.acknowledged) other.acknowledged.set(key, value)
  return other
}

function stop(cluster: LoopCluster, id: number): void {
  cluster.node(id).loop.storage.close()
  cluster.nodes.delete(id)
  disk(cluster, id).keepAll()
}

/** Takes entries, or the batches that all these records lie in. */
function damage(target: SimulatedDisk, places: ReadonlyArray<Place>, wholeBatches: boolean): void {
  for (const { path, type, start, batchStart, batchEnd } of places) {
    if (wholeBatches) {
      const file = target.open(path)
      file.write(new Uint8Array(batchEnd - batchStart).fill(9), batchStart)
      file.sync()
    } else if (type === recordTypes.append) target.corrupt(path, start + 54, 1)
  }
}

function disk(cluster: LoopCluster, id: number): SimulatedDisk {
  return cluster.disks.get(id) as SimulatedDisk
}

/** While damage has a hold on a replica, it neither leads nor asks for votes. */
function expectModest(cluster: LoopCluster): void {
  for (const node of cluster.nodes.values()) {
    const replica = node.loop.replicas.get(range)
    if (replica === undefined || replica.log.voteFloor === undefined) continue
    expect(replica.raft.role).toBe("follower")
  }
}

function settle(cluster: LoopCluster): void {
  cluster.until("the cluster settles", () => {
    expectModest(cluster)
    return cluster.isSettled
  })
  cluster.expectWhole()
  for (const node of cluster.nodes.values()) {
    const log = node.loop.replicas.get(range)?.log
    expect([log?.missingCount, log?.isUnsure, log?.voteFloor]).toEqual([0, false, undefined])
  }
}

function reports(cluster: LoopCluster): string {
  return [...cluster.nodes.values()].flatMap((node) => node.reports).join("\n")
}

const base = stopped()

describe("pitfall 36: a torn tail is not damage in the middle", () => {
  test("a bit of each record of one of three nodes: it leads nobody for what it lost, and gets it back from the others", () => {
    const places = records(disk(base, 1))
    const entries = places.filter(({ type }) => type === recordTypes.append)
    expect(entries.length).toBeGreaterThan(12)
    let gaps = 0
    for (const [i, place] of places.entries()) {
      const cluster = copy(base)
      disk(cluster, 1).corrupt(place.path, place.start + 4 + (i % 45), 1 << (i % 8))
      for (const id of [1, 2, 3]) cluster.start(id)
      for (const { log } of cluster.node(1).loop.replicas.values()) gaps += log.missingCount
      settle(cluster)
      expect(reports(cluster)).toContain(place.path)
      // And after a restart nothing is missing again.
      cluster.restart(1)
      expect(cluster.replica(1, range)?.log.missingCount).toBe(0)
    }
    expect(gaps).toBeGreaterThanOrEqual(entries.length)
  }, 120_000)

  test("disjoint records on all three: nothing that was acknowledged is lost", () => {
    const prng = new Prng(36)
    for (let round = 0; round < 25; round++) {
      const cluster = copy(base)
      // Every entry is lost somewhere, and nowhere twice.
      for (const id of [1, 2, 3]) {
        for (const place of records(disk(base, id))) {
          if (place.type !== recordTypes.append) continue
          if ((place.index + round) % 3 !== id - 1) continue
          disk(cluster, id).corrupt(place.path, place.start + 8 + prng.int(0, 50), 1)
        }
      }
      for (const id of [1, 2, 3]) cluster.start(id)
      const missing = [1, 2, 3].map((id) => cluster.replica(id, range)?.log.missingCount ?? 0)
      expect(Math.min(...missing)).toBeGreaterThan(3)
      settle(cluster)
    }
  }, 120_000)

  test("two damaged nodes mend each other while the third is down", () => {
    const cluster = copy(base)
    for (const [id, rest] of [
      [1, 0],
      [2, 1],
    ] as const) {
      for (const place of records(disk(base, id))) {
        if (place.type !== recordTypes.append || place.index % 2 !== rest) continue
        disk(cluster, id).corrupt(place.path, place.start + 54, 1)
      }
    }
    for (const id of [1, 2]) cluster.start(id)
    cluster.untilLeader(range)
    for (const [key, value] of cluster.acknowledged) expect(cluster.get(key)).toBe(value)
  }, 60_000)

  /**
   * A cluster that is down. The hurt node has lost what it acknowledged last, as records or as whole batches; the one behind never had it, and the leader
   * of then has it.
   */
  function lateLost(wholeBatches: boolean) {
    const cluster = copy(base)
    for (const id of [1, 2, 3]) cluster.start(id)
    const leader = cluster.untilLeader(range).id
    const [hurt, behind] = [1, 2, 3].filter((id) => id !== leader) as [number, number]
    cluster.pass(500)
    const known = records(disk(cluster, hurt)).length
    cluster.loses = (from, to) => from === behind || to === behind
    for (let i = 0; i < 5; i++) cluster.put(`late ${i}`, `value ${i}`)
    cluster.pass(300)
    for (const id of [1, 2, 3]) stop(cluster, id)
    damage(disk(cluster, hurt), records(disk(cluster, hurt)).slice(known), wholeBatches)
    cluster.loses = () => false
    return { cluster, leader, hurt, behind }
  }

  function expectNoLeader(cluster: LoopCluster): void {
    for (let i = 0; i < 30; i++) {
      cluster.pass(100)
      expect(cluster.leader(range)).toBeUndefined()
    }
  }

  for (const wholeBatches of [false, true]) {
    const what = wholeBatches ? "the batches" : "the records"
    test(`whoever lost ${what} of acknowledged entries elects nobody who never had them`, () => {
      const { cluster, leader, hurt, behind } = lateLost(wholeBatches)
      cluster.start(hurt)
      cluster.start(behind)
      expectNoLeader(cluster)
      cluster.start(leader)
      settle(cluster)
    }, 60_000)
  }

  test("a follower whose newest batch is damaged as if it were torn learns from its leader what it owes, and gets it back", () => {
    const cluster = copy(base)
    for (const id of [1, 2, 3]) cluster.start(id)
    const leader = cluster.untilLeader(range)
    cluster.pass(500)
    const hurt = [1, 2, 3].find((id) => id !== leader.id) as number
    const last = () => cluster.replica(hurt, range)?.raft.lastIndex ?? 0
    const before = last()
    cluster.beginPut("newest", "value")
    cluster.until(
      "the follower has acknowledged it",
      () =>
        leader.loop.replicas
          .get(range)
          ?.raft.progress()
          .some(({ replica, match }) => replica === hurt && match > before) === true,
    )
    stop(cluster, hurt)
    const newest = records(disk(cluster, hurt)).find(({ index }) => index === before + 1) as Place
    // As if it had never been written, nor the empty one that states it to be durable.
    const file = disk(cluster, hurt).open(newest.path)
    const end = disk(cluster, hurt).sizeOf(newest.path)
    file.write(new Uint8Array(end - newest.batchStart), newest.batchStart)
    file.sync()
    cluster.start(hurt)
    const log = cluster.replica(hurt, range)?.log
    expect([last(), log?.isUnsure, log?.voteFloor]).toEqual([before, false, undefined])
    let hasOwed = false
    cluster.until("it has the entry again", () => {
      hasOwed ||= cluster.replica(hurt, range)?.log.voteFloor !== undefined
      return last() > before
    })
    expect(hasOwed).toBe(true)
    settle(cluster)
  }, 60_000)

  test("a leader that loses entries which it alone has makes room for one that can send what follows", () => {
    const cluster = copy(base)
    for (const id of [1, 2, 3]) cluster.start(id)
    const leader = cluster.untilLeader(range)
    cluster.pass(500)
    const known = records(disk(cluster, leader.id)).length
    cluster.loses = (from, _, message) =>
      from === leader.id && message._tag === "Raft" && message.message._tag === "AppendRequest"
    const last = cluster.replica(leader.id, range)?.raft.lastIndex ?? 0
    for (let i = 0; i < 6; i++) {
      // More than the cache holds, so that they are read back from the disk.
      cluster.beginPut(`alone ${i}`, "x".repeat(2000))
      cluster.pass(100)
    }
    expect(leader.isLeader).toBe(true)
    const own = records(disk(cluster, leader.id)).slice(known)
    const lost = own.find(({ type, index }) => type === recordTypes.append && index === last + 1)
    damage(disk(cluster, leader.id), [lost as Place], false)
    cluster.loses = () => false
    cluster.until(
      "the loss is seen",
      () => (leader.loop.replicas.get(range)?.log.missingCount ?? 0) > 0,
    )
    cluster.put("after", "of another leader")
    settle(cluster)
  }, 60_000)

  test("whoever does not know what it promised sends no word of consensus; the furthest log of the others binds its vote", () => {
    const { cluster, leader, hurt } = lateLost(true)
    const isUnsure = () => cluster.replica(hurt, range)?.log.isUnsure
    let said = 0
    cluster.loses = (from, to, message) => {
      const isRaft = message._tag === "Raft" && message.range === range
      // A question whether it is still a member, which answers nothing.
      const asks =
        isRaft && message.message._tag === "HeartbeatResponse" && message.message.term === 0
      if (from === hurt && isUnsure() === true && isRaft && !asks) said++
      return message._tag === "EntriesFound" && to === hurt
    }
    for (const id of [1, 2, 3]) cluster.start(id)
    cluster.until("the two others have a leader", () => cluster.leader(range) !== undefined)
    cluster.put("meanwhile", "of the two")
    expect([isUnsure(), said]).toEqual([true, 0])
    // Now it hears where the others stand, but gets no entry of theirs.
    cluster.loses = (from, to, message) => {
      if (message._tag === "EntriesFound" && to === hurt) return message.entries.length > 0
      return message._tag === "Raft" && (from === leader || to === leader || to === hurt)
    }
    cluster.until("it has settled", () => isUnsure() === false)
    expect(cluster.replica(hurt, range)?.log.voteFloor).toBeDefined()
    stop(cluster, leader)
    cluster.loses = () => false
    cluster.start(leader)
    settle(cluster)
  }, 60_000)

  test("settled, it still elects nobody who never had what it lost", () => {
    const { cluster, leader, hurt } = lateLost(true)
    for (const id of [1, 2, 3]) cluster.start(id)
    const isUnsure = () => cluster.replica(hurt, range)?.log.isUnsure
    cluster.loses = (_from, _to, message) => {
      return (
        message._tag === "Raft" || (message._tag === "EntriesFound" && message.entries.length > 0)
      )
    }
    cluster.until("it has settled", () => isUnsure() === false)
    cluster.pass(200)
    stop(cluster, leader)
    cluster.loses = () => false
    expectNoLeader(cluster)
    cluster.start(leader)
    settle(cluster)
  }, 60_000)

  test("once its doubt has ended, no core of before takes part: what it knows of terms and votes is what the log says", () => {
    const { cluster, leader, hurt, behind } = lateLost(true)
    cluster.start(leader)
    cluster.start(behind)
    const term = () => cluster.replica(hurt, range)?.raft.term ?? 0
    const settledTerm = cluster.replica(cluster.untilLeader(range).id, range)?.raft.term ?? 0
    // Nothing is put back, so that the log stays short of what it owes.
    cluster.loses = (_from, to, message) =>
      to === hurt && message._tag === "EntriesFound" && message.entries.length > 0
    cluster.start(hurt)
    expect(term()).toBeLessThan(settledTerm)
    const log = () => cluster.replica(hurt, range)?.log
    let isSure = 0
    cluster.until("it has settled, and was heard for a while", () => {
      if (log()?.mayVote === true) {
        expect(term()).toBeGreaterThanOrEqual(log()?.hardState.term ?? 0)
        isSure++
      }
      return isSure > 20
    })
    expect(log()?.hardState.term).toBeGreaterThanOrEqual(settledTerm)
    cluster.loses = () => false
    settle(cluster)
  }, 60_000)

  for (const answered of [true, false]) {
    const how = answered ? "entries come from the others" : "the leader sends them again"
    test(`a leader that counts on what a follower lost: ${how}`, () => {
      const cluster = copy(base)
      for (const id of [1, 2, 3]) cluster.start(id)
      const leader = cluster.untilLeader(range).id
      const hurt = leader === 1 ? 2 : 1
      for (let i = 0; i < 5; i++) cluster.put(`late ${i}`, `value ${i}`)
      cluster.pass(300)
      stop(cluster, hurt)
      const entries = records(disk(cluster, hurt)).filter(({ type }) => type === recordTypes.append)
      damage(disk(cluster, hurt), entries.slice(-3), false)
      cluster.loses = (_from, _to, message) => !answered && message._tag === "EntriesFound"
      cluster.start(hurt)
      const { term } = cluster.replica(leader, range)?.raft ?? { term: 0 }
      settle(cluster)
      expect(cluster.replica(leader, range)?.raft.term).toBe(term)
    }, 60_000)
  }

  test("what the others no longer have comes with a snapshot, also from a leader that counts on it already", () => {
    const cluster = copy(base)
    Object.assign(cluster, { settings: { ...base.settings, engine: { memtableBytes: 4096 } } })
    cluster.start(2)
    cluster.start(3)
    cluster.untilLeader(range)
    for (let i = 0; i < 60; i++) cluster.put(`key ${i}`, `value ${i} ${"x".repeat(100)}`)
    cluster.pass(1000)
    const oldest = [2, 3].map((id) => cluster.replica(id, range)?.log.firstIndex ?? 0)
    expect(Math.min(...oldest)).toBeGreaterThan(10)
    const entries = records(disk(base, 1)).filter(({ type }) => type === recordTypes.append)
    for (const place of entries.slice(3, 5))
      disk(cluster, 1).corrupt(place.path, place.start + 54, 1)
    cluster.start(1)
    settle(cluster)
  }, 60_000)

  test("an entry that a follower knows to be committed, finds damaged and nobody has any more: it takes the leader's snapshot", () => {
    const cluster = copy(base)
    Object.assign(cluster, { settings: { ...base.settings, engine: { memtableBytes: 4096 } } })
    for (const id of [1, 2, 3]) cluster.start(id)
    const leader = cluster.untilLeader(range)
    cluster.pass(500)
    const hurt = [1, 2, 3].find((id) => id !== leader.id) as number
    const log = () => cluster.replica(hurt, range)?.log
    const last = log()?.lastIndex ?? 0
    // What followers acknowledge is not heard, so nothing is applied; it is more than the cache holds, and will be read back.
    cluster.loses = (_from, to, message) =>
      to === leader.id && message._tag === "Raft" && message.message._tag === "AppendResponse"
    for (let i = 0; i < 6; i++) {
      cluster.beginPut(`late ${i}`, "x".repeat(2000))
      cluster.pass(50)
    }
    const lost = records(disk(cluster, hurt)).find(
      ({ type, index }) => type === recordTypes.append && index === last + 1,
    )
    damage(disk(cluster, hurt), [lost as Place], false)
    cluster.loses = (from, _, message) => from === hurt && message._tag === "EntriesWanted"
    cluster.until("the loss is seen", () => log()?.missingCount === 1)
    const others = [1, 2, 3].filter((id) => id !== hurt)
    let puts = 0
    cluster.until("the others have released it", () => {
      cluster.put(`more ${puts++}`, "y".repeat(1000))
      return others.every((id) => (cluster.replica(id, range)?.log.firstIndex ?? 0) > last + 1)
    })
    cluster.pass(500)
    expect(cluster.replica(hurt, range)?.raft.commitIndex).toBeGreaterThan(last)
    expect(cluster.replica(hurt, range)?.machine.appliedIndex).toBe(last)
    cluster.loses = () => false
    settle(cluster)
  }, 60_000)

  test("who alone has what the others miss may be elected without entries that it has lost and that nobody else ever had", () => {
    const cluster = copy(base)
    const settings = { ...base.settings, retentionMs: 100, retentionBytes: 0, retainedEntries: 0 }
    Object.assign(cluster, { settings })
    for (const id of [1, 2, 3]) cluster.start(id)
    const ahead = cluster.untilLeader(range).id
    const [holder, behind] = [1, 2, 3].filter((id) => id !== ahead) as [number, number]
    cluster.pass(500)
    const logOf = (id: number) => cluster.replica(id, range)?.log
    const first = (logOf(ahead)?.lastIndex ?? 0) + 1
    cluster.loses = (from, to) => from === behind || to === behind
    for (let i = 0; i < 3; i++) cluster.put(`two have ${i}`, "value")
    const last = logOf(ahead)?.lastIndex ?? 0
    cluster.until("the leader has it in tables only", () => {
      cluster.node(ahead).loop.storage.flushWanted = true
      return (logOf(ahead)?.firstIndex ?? 0) > first
    })
    expect(logOf(holder)?.lastIndex).toBe(last)
    cluster.loses = () => true
    for (let i = 0; i < 2; i++) {
      cluster.beginPut(`one has ${i}`, "value")
      cluster.pass(50)
    }
    cluster.pass(500)
    expect(logOf(ahead)?.lastIndex).toBeGreaterThan(last + 1)
    for (const id of [1, 2, 3]) stop(cluster, id)
    for (const [id, index] of [
      [holder, first],
      [ahead, last + 1],
    ] as const) {
      const entries = records(disk(cluster, id)).filter(({ type }) => type === recordTypes.append)
      const lost = entries.filter((entry) => entry.index === index)
      expect(lost.length).toBe(1)
      damage(disk(cluster, id), lost, false)
    }
    cluster.loses = () => false
    for (const id of [1, 2, 3]) cluster.start(id)
    expect([holder, ahead].map((id) => logOf(id)?.missingCount)).toEqual([1, 1])
    settle(cluster)
  }, 60_000)

  test("the last batches lost as a whole: a node that may have promised anything waits for the word of all others", () => {
    for (let count = 1; count <= 4; count++) {
      const cluster = copy(base)
      const places = records(disk(base, 1))
      const starts = [...new Set(places.map(({ batchStart }) => batchStart))].slice(-count)
      for (const start of starts) {
        const place = places.find(({ batchStart }) => batchStart === start) as Place
        const file = disk(cluster, 1).open(place.path)
        file.write(new Uint8Array(place.batchEnd - start).fill(7), start)
        file.sync()
      }
      cluster.start(1)
      cluster.start(2)
      expect(cluster.replica(1, range)?.log.isUnsure).toBe(true)
      cluster.pass(3000)
      // One of two others alone is not enough: it takes no part, so nobody leads.
      expect(cluster.leader(range)).toBeUndefined()
      expect(cluster.replica(1, range)?.log.isUnsure).toBe(true)
      cluster.restart(1)
      expect(cluster.replica(1, range)?.log.isUnsure).toBe(true)
      cluster.start(3)
      settle(cluster)
    }
  }, 60_000)

  test("who waits for a voter that never comes back asks to be replaced, and is, by a replica that has promised nothing", () => {
    const cluster = new LoopCluster({
      founders: [1, 2, 3, 4, 5],
      settings: { engine: { memtableBytes: 1 << 20 } },
    })
    const { replicas } = cluster.descriptor(range)
    const rest = [1, 2, 3, 4, 5].filter((id) => replicas.every(({ node }) => node !== id))
    const five = [...replicas, ...rest.map((id) => voter(id, 10 + id))]
    cluster.until("five voters", () => cluster.members(range, five)?._tag === "Changed")
    for (let i = 0; i < 5; i++) cluster.put(`key ${i}`, `value ${i}`)
    cluster.pass(500)
    const leader = cluster.untilLeader(range).id
    const [dead, hurt] = [1, 2, 3, 4, 5].filter((id) => id !== leader) as [number, number]
    for (const id of [dead, hurt]) stop(cluster, id)
    const last = records(disk(cluster, hurt)).at(-1) as Place
    damage(disk(cluster, hurt), [last], true)
    cluster.start(hurt)
    expect(cluster.replica(hurt, range)?.log.isUnsure).toBe(true)
    const odd = () => cluster.untilLeader(range).loop.oddReplicas()
    cluster.pass(5000)
    expect(odd()).toEqual([])
    cluster.until("it asks to be replaced", () => odd().some(({ node }) => node === hurt), 60_000)
    const others = five.filter(({ node }) => node !== hurt)
    for (const wanted of [others, [...others, learner(hurt, 20)]]) {
      cluster.until("it is replaced", () => cluster.members(range, wanted)?._tag === "Changed")
    }
    cluster.until("the new one has it all", () => {
      const [there, here] = [leader, hurt].map((id) => cluster.replica(id, range)?.machine)
      return here?.replica === 20 && here.appliedIndex === there?.appliedIndex
    })
    expect(odd().some(({ node }) => node === hurt)).toBe(false)
  })

  test("a crash at any operation on the disk while entries are put back", () => {
    const prng = new Prng(1)
    for (let point = 1; point <= 40; point += 1) {
      const cluster = copy(base)
      for (const place of records(disk(base, 1))) {
        if (place.type !== recordTypes.append || place.index % 3 !== 0) continue
        disk(cluster, 1).corrupt(place.path, place.start + 54, 1)
      }
      for (const id of [1, 2, 3]) cluster.start(id)
      disk(cluster, 1).crashAfter(disk(cluster, 1).operations + point)
      try {
        for (let i = 0; i < 100; i++) cluster.pass(10)
      } catch {
        // The crash of node 1.
      }
      cluster.nodes.delete(1)
      disk(cluster, 1).crashAfter(undefined)
      disk(cluster, 1).crash(prng)
      cluster.start(1)
      settle(cluster)
    }
  }, 120_000)

  test("a torn last record that nobody was told of is no damage", () => {
    const cluster = copy(base)
    const last = records(disk(base, 1)).at(-1) as Place
    // The tail as a power loss leaves it: neither the last batch nor anything behind it is whole.
    const file = disk(cluster, 1).open(last.path)
    file.write(new Uint8Array(file.sizeBytes - last.batchEnd + 20), last.batchEnd - 20)
    file.sync()
    for (const id of [1, 2, 3]) cluster.start(id)
    expect(reports(cluster)).toBe("")
    settle(cluster)
  }, 60_000)
})

describe("damage that is met while a node runs", () => {
  test("a leader that cannot read an entry for a laggard goes on, gets it back, and the laggard catches up", () => {
    const cluster = new LoopCluster({
      settings: {
        engine: { memtableBytes: 1 << 20 },
        retentionBytes: 1 << 30,
        retentionMs: 1e9,
        retainedEntries: 1e6,
        journal: { segmentBytes: 4096, tailCacheBytes: 1 },
      },
    })
    const leader = cluster.untilLeader(range).id
    const laggard = [1, 2, 3].find((id) => id !== leader) as number
    cluster.loses = (from, to) => from === laggard || to === laggard
    for (let i = 0; i < 30; i++) cluster.put(`key ${i}`, `value ${i}`)
    for (const place of records(disk(cluster, leader))) {
      if (place.type !== recordTypes.append || place.index % 4 !== 1 || place.index < 6) continue
      disk(cluster, leader).corrupt(place.path, place.start + 54, 1)
    }
    cluster.loses = () => false
    cluster.until("the cluster settles", () => cluster.isSettled, 60_000)
    expect(reports(cluster)).toContain("is there again")
    cluster.expectWhole()
  }, 60_000)
})
