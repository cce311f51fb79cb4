/** Compressed streams through each proxy with its file of deploy/: at once, exact after a cut, and with a whole end. */
import t, { type Test } from 'tap'
import { eventually } from '../support/inbox.ts'
import { listen, type Reader } from '../support/reader.ts'
import { TOPIC } from './crowd.ts'
import { Publisher, startFleet, type Fleet } from './fleet.ts'
import { isInstalled, KINDS, startReverseProxy, type Kind, type ReverseProxy } from './proxies.ts'

/** So many clients of each proxy: some are on each instance. */
const CLIENTS = 4

/** What waits for another event, or for a timer of the proxy, takes longer. In milliseconds. */
const AT_ONCE_MS = 50

t.setTimeout(240_000)

/** A client that comes back at its cursor when its stream is cut. */
class Client {
  reader: Reader
  /** What its streams have had that were cut, whole events alone. */
  readonly #before: string[] = []
  readonly #open: (cursor?: string) => Promise<Reader>

  private constructor(reader: Reader, open: (cursor?: string) => Promise<Reader>) {
    this.reader = reader
    this.#open = open
  }

  static async open(t: Test, { clear }: ReverseProxy): Promise<Client> {
    const headers = { accept: 'text/event-stream', 'accept-encoding': 'gzip' }
    const open = (cursor?: string) =>
      listen(t, clear, `/events?topic=${TOPIC}${cursor === undefined ? '' : `&after=${cursor}`}`, headers)
    return new Client(await open(), open)
  }

  get got(): readonly string[] {
    return [...this.#before, ...this.reader.messages.map(({ data }) => data!)]
  }

  async comeBack(): Promise<void> {
    this.#before.push(...this.reader.messages.map(({ data }) => data!))
    const cursor = this.reader.frames.all.findLast(({ id }) => id !== undefined)!.id
    // a proxy may not know yet who is away
    const reader = await eventually(
      () => this.#open(cursor).catch(() => null),
      answer => answer !== null,
      'a stream again'
    )
    this.reader = reader!
  }
}

const kinds = Object.entries<Kind>(KINDS)
const missing = kinds.filter(([, kind]) => !isInstalled(kind)).map(([name]) => name)
if (missing.length > 0) t.comment(`not installed: ${missing.join(', ')}`)
const installed = kinds.filter(([name]) => !missing.includes(name))

// all proxies at the same time, before the same instances
t.test('compressed streams', { skip: installed.length === 0 && 'no proxy is installed' }, async t => {
  const fleet = await startFleet(t, { DRAIN: '1s' })
  const [first, second] = fleet.instances as [Fleet['instances'][0], Fleet['instances'][0]]
  const all = await Promise.all(
    installed.map(async ([name, kind]) => {
      const proxy = await startReverseProxy(t, kind, fleet.instances)
      const clients: Client[] = []
      while (clients.length < CLIENTS) clients.push(await Client.open(t, proxy))
      return { name, clients }
    })
  )
  const publisher = new Publisher(second, 100)
  /** Publishes so many, each once everybody has the one before; how late the slowest client of each proxy had them. */
  const tell = async (count: number) => {
    const late = all.map(() => [] as number[])
    for (let n = 0; n < count; n++) {
      const number = await publisher.publish()
      const stored = performance.now()
      await Promise.all(
        all.map(async ({ name, clients }, index) => {
          await eventually(
            () => clients.map(({ got }) => got.at(-1)),
            last => last.every(each => each === String(number)),
            `event ${number}, through ${name}`
          )
          late[index]!.push(performance.now() - stored)
        })
      )
    }
    return late
  }

  await t.test('come as they are, and each event at once', async t => {
    for (const { name, clients } of all)
      for (const { reader } of clients) t.equal(reader.response.headers['content-encoding'], 'gzip', name)
    // enough for an audience to have a history
    const late = await tell(60)
    for (const [index, { name }] of all.entries()) {
      // a busy machine is late now and then, a proxy that holds back each time
      const best = Math.min(...late[index]!.slice(-20))
      t.ok(best < AT_ONCE_MS, `${name}: at best ${best.toFixed(1)} ms`)
    }
  })

  await t.test('go on exactly after a cut', async t => {
    const cut: Client[] = []
    for (const { clients } of all)
      for (const client of clients) void client.reader.ended.then(() => cut.push(client))
    await first.end('SIGKILL')
    // what is published meanwhile they have missed
    const number = await publisher.publish()
    await eventually(
      () => all.flatMap(({ clients }) => clients).filter(client => !cut.includes(client)),
      others => others.every(({ got }) => got.at(-1) === String(number)),
      'the others to have it'
    )
    t.ok(cut.length > 0)
    for (const client of cut) {
      t.equal(await client.reader.ended, 'cut', 'a cut is no end')
      await client.comeBack()
    }
    await tell(20)
  })

  await t.test('end with a goodbye and a whole trailer', async t => {
    await second.end('SIGTERM')
    const numbers = Array.from({ length: publisher.count }, (_, index) => `${index + 1}`)
    for (const { name, clients } of all) {
      for (const client of clients) {
        t.equal((await client.reader.whole()).at(-1)?.event, 'goodbye', name)
        t.strictSame(client.got, numbers, name)
      }
    }
  })
})
