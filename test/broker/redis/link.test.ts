import t from 'tap'
import { Link, SlotMoved } from '../../../src/broker/redis/link.ts'
import type { LinkConnection, LinkConnectionListener } from '../../../src/broker/redis/link.ts'
import { BrokerUnavailable } from '../../../src/broker/unavailable.ts'
import { formatPosition } from '../../../src/event.ts'
import { HeldClock, settled } from '../../support/clock.ts'
import { at, idAt } from './stage.ts'

/** A connection that the test holds the other end of. */
class StagedConnection implements LinkConnection {
  readonly channels: string[] = []
  readonly listener: LinkConnectionListener
  isDisconnected = false

  constructor(listener: LinkConnectionListener) {
    this.listener = listener
  }

  listen(channels: readonly string[]): Promise<void> {
    this.channels.push(...channels)
    return Promise.resolve()
  }

  unlisten(channel: string): void {
    this.channels.splice(this.channels.indexOf(channel), 1)
  }

  disconnect(): void {
    this.isDisconnected = true
    this.listener.closed(new Error('connection closed'))
  }
}

/** A link whose ticks come back when the test lets them. */
class Stage {
  readonly clock = new HeldClock()
  readonly said: string[] = []
  readonly connections: StagedConnection[] = []
  /** The numbers of the ticks that were asked for. */
  readonly ticks: number[] = []
  failure: Error | null = null
  readonly link: Link

  constructor() {
    this.link = new Link({
      clock: this.clock,
      connect: async listener => {
        if (this.failure) throw this.failure
        const connection = new StagedConnection(listener)
        this.connections.push(connection)
        return connection
      },
      channels: () => ['ticks', 'a'],
      askForTick: async number => void this.ticks.push(number),
      listener: {
        message: (_, message) => this.said.push(message.toString()),
        tick: position => this.said.push(`tick ${formatPosition(position)}`),
        ticked: () => this.said.push('ticked'),
        down: () => this.said.push('down'),
        failed: error => this.said.push(error.message)
      }
    })
  }

  get connection(): StagedConnection {
    return this.connections.at(-1)!
  }

  /** Lets the tick come back that was asked for last. */
  async tickArrives(ms: number): Promise<void> {
    this.link.receiveTick(`${this.ticks.at(-1)!} ${idAt(ms)}`)
    await settled()
  }

  get news(): string[] {
    return this.said.splice(0)
  }
}

async function connected(): Promise<Stage> {
  const stage = new Stage()
  stage.link.start()
  await settled()
  await stage.tickArrives(10)
  stage.said.length = 0
  return stage
}

t.test('it listens, and then asks for a tick, at once and every second', async t => {
  const stage = new Stage()
  stage.link.start()
  await settled()
  t.strictSame(stage.connection.channels, ['ticks', 'a'])
  t.strictSame([...stage.ticks, ...stage.news], [1])
  await stage.tickArrives(10)
  t.strictSame(stage.news, ['tick 10-0', 'ticked'])
  await stage.clock.advance(999)
  t.strictSame(stage.ticks, [1])
  await stage.clock.advance(1)
  t.strictSame(stage.ticks, [1, 2])
})

t.test('a tick that does not come back ends the connection, and another one is opened', async t => {
  const stage = await connected()
  const { connection } = stage
  await stage.clock.advance(1000)
  await stage.clock.advance(1999)
  t.strictSame(stage.news, [])
  await stage.clock.advance(1)
  t.strictSame(stage.news, ['a tick timed out: it did not come back in 2000 ms', 'down'])
  t.ok(connection.isDisconnected)
  connection.listener.message(Buffer.from('a'), Buffer.from('late'))
  await stage.tickArrives(11)
  await stage.clock.advance(250)
  t.equal(stage.connections.length, 2)
  await stage.tickArrives(12)
  t.strictSame(stage.news, ['tick 11-0', 'tick 12-0', 'ticked'], 'what the old one brings does not count')
  stage.connection.listener.message(Buffer.from('a'), Buffer.from('new'))
  t.strictSame(stage.news, ['new'])
})

t.test('a tick of another number does not count', async t => {
  const stage = await connected()
  await stage.clock.advance(1000)
  stage.link.receiveTick(`1 ${idAt(11)}`)
  t.strictSame(stage.news, [])
  await stage.tickArrives(12)
  t.strictSame(stage.news, ['tick 12-0', 'ticked'])
})

t.test('a connection that is lost is down at once; another is tried again and again', async t => {
  const stage = await connected()
  stage.failure = new Error('refused')
  stage.connection.listener.closed(new Error('reset'))
  t.strictSame(stage.news, ['down'])
  await settled()
  await stage.clock.advance(500)
  t.strictSame(stage.news, ['reset', 'down', 'refused', 'down', 'refused', 'down'])
  stage.failure = null
  await stage.clock.advance(250)
  await stage.tickArrives(20)
  t.strictSame(stage.news, ['tick 20-0', 'ticked'])
})

t.test('one that is lost right after a tick is given up as soon', async t => {
  const stage = await connected()
  await stage.clock.advance(1000)
  stage.link.receiveTick(`2 ${idAt(11)}`)
  stage.connection.listener.closed(new Error('reset'))
  await settled()
  await stage.clock.advance(250)
  t.equal(stage.connections.length, 2)
})

t.test('of a slot that has moved another connection is opened at once', async t => {
  const stage = await connected()
  stage.connection.listener.closed(new SlotMoved('the slot has moved'))
  await settled()
  t.equal(stage.connections.length, 2)
})

t.test('who waits for a tick gets one that is asked for from then on', async t => {
  const stage = await connected()
  const first = stage.link.nextTick()
  await settled()
  t.strictSame(stage.ticks, [1, 2], 'at once')
  const second = stage.link.nextTick()
  await stage.tickArrives(11)
  t.strictSame(await first, at(11))
  t.strictSame(stage.ticks, [1, 2, 3], 'not with the one that is under way')
  await stage.tickArrives(12)
  t.strictSame(await second, at(12))
})

t.test('who waits for a tick is rejected when the connection is lost', async t => {
  const stage = await connected()
  const [asked, queued] = [stage.link.nextTick(), settled().then(() => stage.link.nextTick())]
  await settled()
  await settled()
  stage.link.giveUp()
  await t.rejects(asked, { name: BrokerUnavailable.name })
  await t.rejects(queued, { name: BrokerUnavailable.name, message: 'no connection to Redis' })
  await t.rejects(stage.link.listen('b'), { message: 'no connection to Redis' })
})

t.test('once closed it stays closed', async t => {
  const stage = await connected()
  const waits = stage.link.nextTick()
  await settled()
  stage.link.close()
  await t.rejects(waits, { name: BrokerUnavailable.name })
  await stage.clock.advance(10_000)
  t.equal(stage.connections.length, 1)
  t.ok(stage.connection.isDisconnected)
  await t.rejects(stage.link.nextTick(), { message: 'no connection to Redis' })

  t.test('also while it connects', async t => {
    const stage = new Stage()
    stage.link.start()
    stage.link.close()
    await settled()
    t.strictSame(
      stage.connections.map(({ isDisconnected }) => isDisconnected),
      [true]
    )
    t.strictSame(stage.ticks, [])
  })
})
