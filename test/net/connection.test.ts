import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { Session } from '../../src/hub/session.ts'
import { build, type TestServer } from '../support/app.ts'
import { eventually } from '../support/inbox.ts'

t.setTimeout(400_000)

/** What is written, over and over; its length has nothing in common with that of a buffer anywhere. */
const PATTERN = Buffer.from(
  Array.from({ length: 1_000_003 }, (_, index) => (index * 31 + (index >> 8)) & 255)
)

const LAST_CHUNK = Buffer.from('0\r\n\r\n')

/** A stream, its socket here, and the one that reads it. */
interface Stream {
  readonly session: Session
  readonly socket: Socket
  readonly reader: Socket
  /** What the next that is written are. */
  next(size: number): Buffer
  /** How many bytes came after the stream's beginning, whether they are what was written but for the last, and those. */
  readonly seen: { bytes: number; isRight: boolean; last: Buffer }
}

async function open(t: Test, server: TestServer): Promise<Stream> {
  const { sessions } = server.app.ringside.hub
  const connected = once(server.app.server, 'connection') as Promise<[Socket]>
  const reader = connect({ host: '127.0.0.1', port: server.port })
  t.teardown(() => reader.destroy())
  reader.on('error', () => {}) // 'close' follows
  reader.write('GET /events/quiet HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n')
  await new Promise<void>(resolve =>
    reader.on('data', function look(bytes: Buffer) {
      if (!bytes.includes('event: cursor')) return
      reader.off('data', look)
      resolve()
    })
  )
  let written = 0
  const seen: Stream['seen'] = { bytes: 0, isRight: true, last: Buffer.alloc(0) }
  reader.on('data', (bytes: Buffer) => {
    const all = Buffer.concat([seen.last, bytes])
    const sure = all.subarray(0, -LAST_CHUNK.length)
    if (!sure.equals(patternAt(seen.bytes - seen.last.length, sure.length))) seen.isRight = false
    seen.bytes += bytes.length
    seen.last = all.subarray(sure.length)
  })
  const next = (size: number) => patternAt((written += size) - size, size)
  const [socket] = await connected
  return { session: [...sessions].at(-1)!, socket, reader, next, seen }
}

function patternAt(offset: number, size: number): Buffer {
  const start = offset % PATTERN.length
  const first = PATTERN.subarray(start, start + size)
  return first.length === size ? first : Buffer.concat([first, PATTERN.subarray(0, size - first.length)])
}

const steps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.integer({ min: 1, max: 500 }) },
    { weight: 6, arbitrary: fc.integer({ min: 1, max: 1_000_000 }) },
    { weight: 2, arbitrary: fc.constantFrom('pause', 'resume', 'turn') }
  ),
  { minLength: 1, maxLength: 40, size: 'max' }
)

t.test('what is written to a stream comes whole and in order, however it is read', async t => {
  const server = await build(t, { HEARTBEAT: '60s' })
  let waited = 0
  await fc.assert(
    fc.asyncProperty(steps, fc.boolean(), async (steps, ends) => {
      const { session, reader, next, seen } = await open(t, server)
      const { sink } = session
      let sent = 0
      for (const step of steps) {
        if (step === 'turn') await turn()
        else if (step === 'pause' || step === 'resume') reader[step]()
        else {
          sent += step
          sink.write(next(step))
        }
      }
      if (sink.pending > 0) waited++
      const closed = new Promise(resolve => reader.once('close', resolve))
      if (ends) sink.end()
      reader.resume()
      if (ends) {
        await closed
        return seen.isRight && seen.bytes === sent + LAST_CHUNK.length && seen.last.equals(LAST_CHUNK)
      }
      await eventually(
        () => seen.bytes,
        bytes => bytes === sent,
        'everything'
      )
      await eventually(
        () => sink.pending,
        pending => pending === 0,
        'a connection that nothing waits in'
      )
      reader.destroy()
      return seen.isRight && seen.last.equals(patternAt(sent - seen.last.length, seen.last.length))
    }),
    { numRuns: 60 }
  )
  t.ok(waited > 10, `in ${waited} of them something waited`)
})

t.test('a connection is full until nothing waits in its stream, be it ever so little', async t => {
  const server = await build(t, { HEARTBEAT: '60s' })
  const { session, socket, reader, next, seen } = await open(t, server)
  const { sink } = session
  reader.pause()
  let sent = 0
  for (; sink.pending === 0; sent += 100_000) sink.write(next(100_000))
  // the kernel takes no part of what comes now
  let go: (() => void) | undefined
  const { _write: write } = socket
  socket._write = (chunk: Buffer, encoding, done) => {
    if (chunk.length !== 10) return write.call(socket, chunk, encoding, done)
    go = () => write.call(socket, chunk, encoding, done)
  }
  sink.write(next(10))
  reader.resume()
  await eventually(
    () => go,
    go => go !== undefined,
    'the turn of the stream'
  )
  t.ok(sink.pending > 0)
  go!()
  await eventually(
    () => sink.pending,
    pending => pending === 0,
    'a connection that nothing waits in'
  )
  await eventually(
    () => seen.bytes,
    bytes => bytes === sent + 10,
    'everything'
  )
  t.ok(seen.isRight)
})

t.test('a time-out that was set before, or for what was answered before, ends no stream', async t => {
  const server = await build(t, { HEARTBEAT: '60s' })
  server.app.server.on('connection', (socket: Socket) => socket.setTimeout(30_000))
  const { session, socket } = await open(t, server)
  t.equal(socket.timeout, 0)
  socket.setTimeout(30_000)
  socket.emit('timeout')
  t.equal(socket.timeout, 0)
  t.equal(session.state, 'live')
})

t.test('a connection that is reset while something waits in it is over', async t => {
  const server = await build(t, { HEARTBEAT: '60s' })
  const { session, reader, next } = await open(t, server)
  reader.pause()
  while (session.sink.pending === 0) session.sink.write(next(100_000))
  session.sink.write(next(10))
  reader.resetAndDestroy()
  await eventually(
    () => session.state,
    state => state === 'closed',
    'its end'
  )
  session.sink.write(next(10))
  t.equal(server.app.ringside.hub.sessions.size, 0)
})

t.test('a connection of which nothing is taken for STALL_TIMEOUT is ended', async t => {
  const server = await build(t, { HEARTBEAT: '60s', STALL_TIMEOUT: '1s' })
  const { session, reader, next } = await open(t, server)
  reader.pause()
  session.sink.write(Buffer.concat(Array.from({ length: 20 }, () => next(PATTERN.length))))
  await eventually(
    () => session.state,
    state => state === 'closed',
    'its end'
  )
})

t.test('but not one of which a write is taken piece by piece for longer', async t => {
  const server = await build(t, { HEARTBEAT: '60s', STALL_TIMEOUT: '1s' })
  const { session, reader, next, seen } = await open(t, server)
  const pieces = 20
  const size = PATTERN.length * pieces
  let due = PATTERN.length
  reader.on('data', () => {
    if (seen.bytes < due) return
    due += PATTERN.length
    reader.pause()
    setTimeout(() => reader.resume(), 150)
  })
  session.sink.write(Buffer.concat(Array.from({ length: pieces }, () => next(PATTERN.length))))
  t.ok(session.sink.pending > 0)
  await eventually(
    () => seen.bytes,
    bytes => bytes === size,
    'everything'
  )
  t.ok(seen.isRight)
  t.equal(session.state, 'live')
})
