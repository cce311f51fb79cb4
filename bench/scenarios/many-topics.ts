import type { Publishers } from '../load/publishers.ts'
import type { Server } from '../load/server.ts'
import { descriptorLimit } from '../machine.ts'
import { drained, during, KIB, RINGSIDE, round, type Bench, type Scenario } from '../scenario.ts'

const TOPICS = 100_000
/** MAX_TOPICS as it comes. */
const TOPICS_A_STREAM = 100
const BATCH = 50
const BATCHES_PER_SECOND = 100
/** What the load and the server need beside the streams. */
const OTHER_DESCRIPTORS = 2000

export const manyTopics: Scenario = {
  name: 'many-topics',
  about:
    'A topic for each user: as many streams with a topic of their own as the descriptors allow, then 100,000 topics ' +
    'with a subscriber each, on 1,000 streams. Memory, and the processor time of an event to one of them (5,000 a ' +
    'second, in batches of 50); beside an event that nobody listens to, with these topics there, and with none.',
  peers: RINGSIDE,
  columns: [
    { key: 'streams', title: 'streams, a topic each' },
    { key: 'streamMemory', title: 'a stream and its topic, KiB', digits: 1 },
    { key: 'streamCpu', title: 'an event to one, µs', digits: 1 },
    { key: 'topics', title: 'topics on 1,000 streams' },
    { key: 'topicMemory', title: 'a topic, KiB', digits: 1 },
    { key: 'topicCpu', title: 'an event to one, µs', digits: 1 },
    { key: 'unheardCpu', title: 'an event to nobody, µs', digits: 1, per: 'emptyCpu' },
    { key: 'emptyCpu', title: 'on a server with no topics, µs', digits: 1 }
  ],
  async measure(bench) {
    const streams = Math.min(TOPICS, Number(descriptorLimit()) - OTHER_DESCRIPTORS || TOPICS)
    const empty = await unheardAlone(bench)
    const own = await spread(bench, bench.size(streams, 300), 1)
    const shared = await spread(bench, bench.size(TOPICS / TOPICS_A_STREAM, 20), TOPICS_A_STREAM)
    return {
      streams: own.topics,
      streamMemory: own.memory,
      streamCpu: own.cpu,
      topics: shared.topics,
      topicMemory: shared.memory,
      topicCpu: shared.cpu,
      unheardCpu: shared.unheard,
      emptyCpu: empty
    }
  }
}

/** Opens streams with so many topics each, none of which is another's. */
async function spread(bench: Bench, streams: number, topicsEach: number) {
  const server = await bench.start({}, { collectable: true })
  const publishers = await bench.publishers(server, 1)
  const topicOf = (index: number) => `users/${index}`
  const warm = bench.subscribers(server)
  await warm.open(bench.size(500, 100))
  await warm.close()
  const before = await server.restingMemory()
  const subscribers = bench.subscribers(server)
  await subscribers.open(streams, {
    each: index => ({
      topics: Array.from({ length: topicsEach }, (_, each) => topicOf(index * topicsEach + each))
    })
  })
  if (subscribers.refused > 0) throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
  const memory = (await server.restingMemory()) - before
  const topics = streams * topicsEach

  let next = 0
  const published = BATCH * BATCHES_PER_SECOND * secondsOf(bench)
  const heard = () => publishTo(bench, publishers, () => topicOf((next = (next + 7919) % topics)))
  await heard()
  await drained(subscribers)
  const { cpu, events } = await during(server, subscribers, async () => {
    const { events } = subscribers
    await heard()
    await subscribers.received(events + published)
  })
  if (events !== published) throw new Error(`${events} events came instead of ${published}`)
  const unheard = await unheardCost(bench, server, publishers)
  await subscribers.close()
  await server.stop()
  return { topics, memory: round(memory / topics / KIB, 2), cpu: round(cpu / published), unheard }
}

async function unheardAlone(bench: Bench): Promise<number> {
  const server = await bench.start()
  const publishers = await bench.publishers(server, 1)
  await unheardCost(bench, server, publishers)
  const cost = await unheardCost(bench, server, publishers)
  await server.stop()
  return cost
}

/** Microseconds of the server for an event that nobody listens to. */
async function unheardCost(bench: Bench, server: Server, publishers: Publishers): Promise<number> {
  let next = 0
  const { cpu, events } = await during(server, bench.subscribers(server), () =>
    publishTo(bench, publishers, () => `nobody/${next++ % 10_000}`)
  )
  if (events > 0) throw new Error(`${events} events came to nobody`)
  await publishers.settled()
  return round(cpu / (BATCH * BATCHES_PER_SECOND * secondsOf(bench)))
}

function publishTo(bench: Bench, publishers: Publishers, topic: () => string): Promise<void> {
  return publishers.paced(BATCHES_PER_SECOND, secondsOf(bench), () => publishers.publishBatch(BATCH, topic))
}

function secondsOf(bench: Bench): number {
  return bench.size(5, 0.2)
}
