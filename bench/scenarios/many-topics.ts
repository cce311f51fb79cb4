import { descriptorLimit } from '../machine.ts'
import {
  drained,
  during,
  KIB,
  RINGSIDE,
  round,
  type Bench,
  type Figures,
  type Scenario
} from '../scenario.ts'

const TOPICS = 100_000
const TOPICS_A_STREAM = 100

export const manyTopics: Scenario = {
  name: 'many-topics',
  about:
    'A topic for each user: as many streams with a topic of their own as the descriptors allow, then 100,000 topics ' +
    'on 1,000 streams; memory, and the processor time of an event to one of them (in batches of 50), beside an event ' +
    'that nobody listens to.',
  peers: RINGSIDE,
  columns: [
    { key: 'streams', title: 'streams, a topic each' },
    { key: 'streamMemory', title: 'a stream and its topic, KiB', digits: 1 },
    { key: 'streamCpu', title: 'an event to one, µs', digits: 1 },
    { key: 'topics', title: 'topics on 1,000 streams' },
    { key: 'topicMemory', title: 'a topic, KiB', digits: 1 },
    { key: 'topicCpu', title: 'an event to one, µs', digits: 1 },
    { key: 'unheardCpu', title: 'an event to nobody, µs', digits: 1 }
  ],
  async measure(bench) {
    const streams = Math.min(TOPICS, bench.size(Number(descriptorLimit()) - 2000 || TOPICS, 1000))
    const own = await spread(bench, streams, 1)
    const shared = await spread(bench, bench.size(TOPICS / TOPICS_A_STREAM, 100), TOPICS_A_STREAM)
    return {
      streams: own.topics,
      streamMemory: own.memory,
      streamCpu: own.cpu,
      topics: shared.topics,
      topicMemory: shared.memory,
      topicCpu: shared.cpu,
      unheardCpu: shared.unheard
    }
  }
}

type Spread = Record<'topics' | 'memory' | 'cpu' | 'unheard', number> & Figures

async function spread(bench: Bench, streams: number, topicsEach: number): Promise<Spread> {
  const server = await bench.start({}, { collectable: true })
  const publishers = await bench.publishers(server, 1)
  const topicOf = (index: number) => `users/${index}`
  const warm = bench.subscribers(server)
  await warm.open(500)
  await warm.close()
  const before = await server.collectedMemory()
  const subscribers = bench.subscribers(server)
  await subscribers.open(streams, {
    each: index => ({
      topics: Array.from({ length: topicsEach }, (_, each) => topicOf(index * topicsEach + each))
    })
  })
  if (subscribers.refused > 0) throw new Error(`${subscribers.refused} were refused: ${subscribers.refusal}`)
  const memory = (await server.collectedMemory()) - before
  const topics = streams * topicsEach

  const seconds = bench.size(5, 0.5)
  const batchesPerSecond = 100
  const published = 50 * batchesPerSecond * seconds
  let next = 0
  const publishTo = (topic: () => string) =>
    publishers.paced(batchesPerSecond, seconds, () => publishers.publishBatch(50, topic))
  const heard = () => publishTo(() => topicOf((next = (next + 7919) % topics)))
  await heard()
  await drained(subscribers)
  const { cpu, events } = await during(server, subscribers, async () => {
    const { events } = subscribers
    await heard()
    await subscribers.received(events + published)
  })
  if (events !== published) throw new Error(`${events} events came instead of ${published}`)
  const nobody = await during(server, subscribers, () => publishTo(() => `nobody/${next++ % topics}`))
  await publishers.settled()
  await subscribers.close()
  await server.stop()
  return {
    topics,
    memory: round(memory / topics / KIB, 2),
    cpu: round(cpu / published),
    unheard: round(nobody.cpu / published)
  }
}
