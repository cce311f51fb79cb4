/** Frames, messages and handshakes of those who mean no good, and of clients with faults: RFC 6455 to the letter. */
import { randomBytes } from 'node:crypto'
import { encode, Tagged } from 'cborg'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { ask, build, publish } from './support/app.ts'
import { eventually } from './support/inbox.ts'
import { rawConnection } from './support/raw.ts'
import { bearer, SECRET, tokenFor, tokenOf } from './support/tokens.ts'
import { connect, type Message, type Protocol, type WsClient } from './support/websocket.ts'

t.setTimeout(400_000)

// One server takes it all, so that what one attack leaves behind shows in another; it must live through every one.
const server = await build(t, { WS_MAX_BYTES: '100000', WS_MESSAGE_RATE: '0' })

function attack(name: string, mount: (t: Test) => Promise<void>): void {
  void t.test(name, async t => {
    await mount(t)
    const started = performance.now()
    const client = await connect(t, server)
    await client.do('subscribe', { topics: ['health'] })
    await publish(server, 'health', 'alive')
    t.match(await client.until(1), [{ data: 'alive' }], 'the server serves on')
    t.ok(performance.now() - started < 2000, 'and at once')
    client.close()
    await client.closed
    await eventually(
      () => server.app.ringside.hub.connections.taken,
      taken => taken === 0,
      'nobody to be left'
    )
  })
}

// --- frames by hand ---

const CONTINUATION = 0
const TEXT = 1
const CLOSE = 8
const PING = 9
const PONG = 10

interface FrameOptions {
  fin?: boolean
  rsv?: number
  mask?: boolean
  /** What is said of the length, instead of what it is. */
  length?: bigint
}

/** A frame of a client (RFC 6455, section 5.2), as latin1. */
function frame(opcode: number, payload: string | Buffer = '', options: FrameOptions = {}): string {
  const { fin = true, rsv = 0, mask = true } = options
  const bytes = Buffer.from(payload as string)
  const size = options.length ?? BigInt(bytes.length)
  const head = Buffer.alloc(size < 126n ? 2 : size < 65_536n ? 4 : 10)
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode
  head[1] = (mask ? 0x80 : 0) | (head.length === 2 ? Number(size) : head.length === 4 ? 126 : 127)
  if (head.length === 4) head.writeUInt16BE(Number(size), 2)
  if (head.length === 10) head.writeBigUInt64BE(size, 2)
  if (!mask) return Buffer.concat([head, bytes]).toString('latin1')
  const key = randomBytes(4)
  const masked = bytes.map((byte, index) => byte ^ key[index % 4]!)
  return Buffer.concat([head, key, masked]).toString('latin1')
}

interface ServerFrame {
  readonly opcode: number
  readonly payload: Buffer
}

/** The frames of a server, which are whole, final and not masked. */
function framesOf(text: string): ServerFrame[] {
  let bytes = Buffer.from(text.slice(text.indexOf('\r\n\r\n') + 4), 'latin1')
  const frames: ServerFrame[] = []
  while (bytes.length >= 2) {
    const [first, second] = [bytes[0]!, bytes[1]!]
    if ((first & 0xf0) !== 0x80) throw new Error(`not a final frame without extensions: ${first}`)
    const head = second < 126 ? 2 : second === 126 ? 4 : 10
    if (bytes.length < head) break
    const size = head === 2 ? second : head === 4 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2))
    if (bytes.length < head + size) break
    frames.push({ opcode: first & 0x0f, payload: bytes.subarray(head, head + size) })
    bytes = bytes.subarray(head + size)
  }
  return frames
}

const HANDSHAKE =
  'GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'

/** A connection after its handshake, with these frames in the same packet. */
function raw(t: Test, ...frames: string[]) {
  const connection = rawConnection(t, server)
  connection.send(HANDSHAKE + frames.join(''))
  return {
    ...connection,
    frames: () => framesOf(connection.text()),
    untilFrames: async (count: number) =>
      eventually(
        () => framesOf(connection.text()),
        all => all.length >= count,
        `${count} frames`
      ),
    /** The code that it is closed with. */
    async code(): Promise<number | undefined> {
      const text = await connection.closed
      const last = framesOf(text).at(-1)
      return last?.opcode === CLOSE ? last.payload.readUInt16BE(0) : undefined
    }
  }
}

const ping = (ref: number) => JSON.stringify({ op: 'ping', ref })
const pong = (ref: number) => JSON.stringify({ op: 'pong', ref })
const textOf = ({ payload }: ServerFrame) => payload.toString()

// A message may come in any number of pieces, and control frames between them (RFC 6455, section 5.4).
attack('fragments, with control frames between them', async t => {
  const whole = Buffer.from('{"op":"ping","ref":"größe"}')
  for (const cut of [1, whole.indexOf(0xc3) + 1, whole.length - 1]) {
    const connection = raw(
      t,
      frame(TEXT, whole.subarray(0, cut), { fin: false }),
      frame(PING, 'between'),
      frame(CONTINUATION, '', { fin: false }),
      frame(PONG, 'unasked'),
      frame(CONTINUATION, whole.subarray(cut))
    )
    const frames = await connection.untilFrames(2)
    t.strictSame(
      frames.map(({ opcode, payload }) => [opcode, payload.toString()]),
      [
        [PONG, 'between'],
        [TEXT, '{"op":"pong","ref":"größe"}']
      ]
    )
    connection.destroy()
  }
  const single = raw(
    t,
    ...[...whole].map((byte, index) =>
      frame(index ? CONTINUATION : TEXT, Buffer.from([byte]), { fin: index === whole.length - 1 })
    )
  )
  t.match((await single.untilFrames(1)).map(textOf), ['{"op":"pong","ref":"größe"}'])
  single.destroy()
})

attack('a frame byte by byte, and many in one packet', async t => {
  const slow = raw(t)
  await slow.until('\r\n\r\n')
  for (const byte of frame(TEXT, ping(1))) {
    slow.send(byte)
    await new Promise(setImmediate)
  }
  t.match((await slow.untilFrames(1)).map(textOf), [pong(1)])
  const many = raw(t, Array.from({ length: 500 }, (_, ref) => frame(TEXT, ping(ref))).join(''))
  t.strictSame(
    (await many.untilFrames(500)).map(textOf),
    Array.from({ length: 500 }, (_, ref) => pong(ref))
  )
  for (const connection of [slow, many]) connection.destroy()
})

// All three ways to say a length, at their bounds.
attack('lengths of 125, 126, 65535 and 65536 bytes', async t => {
  for (const size of [125, 126, 127, 65_535, 65_536, 99_999]) {
    const client = await connect(t, server)
    client.ws.send(ping(1).padEnd(size))
    t.match(await client.answer(1), { op: 'pong' }, `${size} bytes`)
    await client.do('subscribe', { topics: ['sized'] })
    await client.do('publish', { topic: 'sized', data: 'x'.repeat(Math.min(size, 61_000)) })
    await client.until(1)
    client.close()
  }
})

const ILL_FORMED: Record<string, readonly [code: number, ...frames: string[]]> = {
  'a frame that is not masked': [1002, frame(TEXT, ping(1), { mask: false })],
  'a reserved bit': [1002, frame(TEXT, ping(1), { rsv: 4 })],
  'another reserved bit': [1002, frame(TEXT, ping(1), { rsv: 1 })],
  'a reserved opcode of data': [1002, frame(3, ping(1))],
  'a reserved opcode of control': [1002, frame(11, 'x')],
  'a control frame in pieces': [1002, frame(PING, 'x', { fin: false })],
  'a control frame of 126 bytes': [1002, frame(PING, 'x'.repeat(126))],
  'a continuation of nothing': [1002, frame(CONTINUATION, ping(1))],
  'a message within another': [1002, frame(TEXT, '{', { fin: false }), frame(TEXT, ping(1))],
  'text that is no UTF-8': [1007, frame(TEXT, Buffer.from([0x7b, 0xff, 0x7d]))],
  'text that ends within a letter': [1007, frame(TEXT, Buffer.from([0x22, 0xc3]))],
  'a surrogate in UTF-8': [1007, frame(TEXT, Buffer.from([0xed, 0xa0, 0x80]))],
  'no UTF-8 over two fragments': [
    1007,
    frame(TEXT, Buffer.from([0xc3]), { fin: false }),
    frame(CONTINUATION, 'x')
  ],
  'a close frame of one byte': [1002, frame(CLOSE, 'x')],
  'a close code that is none': [1002, frame(CLOSE, Buffer.from([0, 99]))],
  'a close code that is never sent': [1002, frame(CLOSE, Buffer.from([0x03, 0xee]))], // 1006
  'a close reason that is no UTF-8': [1007, frame(CLOSE, Buffer.from([0x03, 0xe8, 0xff]))],
  'a frame that says it has 2^63 bytes': [1009, frame(TEXT, 'x', { length: 2n ** 62n })],
  'a frame past the limit, before it has come': [1009, frame(TEXT, 'x', { length: 100_001n })],
  'fragments past the limit': [
    1009,
    frame(TEXT, ' '.repeat(60_000), { fin: false }),
    frame(CONTINUATION, ' '.repeat(60_000))
  ]
}

for (const [name, [code, ...frames]] of Object.entries(ILL_FORMED)) {
  attack(`${name}: ${code}`, async t => {
    const connection = raw(t, ...frames, frame(TEXT, ping(2)))
    t.equal(await connection.code(), code)
    t.notOk(
      connection.frames().some(each => textOf(each) === pong(2)),
      'nothing after it counts'
    )
    // also for one who has subscribed, and is written to meanwhile
    const subscribed = raw(t, frame(TEXT, '{"op":"subscribe","ref":1,"topics":["busy"]}'))
    await subscribed.untilFrames(1)
    const publishing = Promise.all(Array.from({ length: 5 }, () => publish(server, 'busy', 'x')))
    subscribed.send(frames.join(''))
    t.equal(await subscribed.code(), code, 'the close frame is the last one')
    await publishing
  })
}

attack('a close frame is answered, also an empty one, and nothing after it counts', async t => {
  for (const [payload, answer] of [
    ['', ''],
    ['\u0003\u00e8bye', '\u0003\u00e8bye']
  ] as const) {
    const connection = raw(t, frame(CLOSE, Buffer.from(payload, 'latin1')), frame(TEXT, ping(1)))
    await connection.closed
    t.strictSame(
      connection.frames().map(({ opcode, payload }) => [opcode, payload.toString('latin1')]),
      [[CLOSE, answer]]
    )
  }
})

attack('messages of nothing but empty fragments', async t => {
  const connection = raw(t, frame(TEXT, '', { fin: false }))
  connection.send(frame(CONTINUATION, '', { fin: false }).repeat(50_000))
  t.ok([1008, undefined].includes(await connection.code()))
})

// Each asks for an answer: as many as a client likes would cost more than messages do.
attack('pings and pongs without end', async t => {
  const limited = await build(t, { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: '**', WS_MESSAGE_RATE: '20' })
  for (const opcode of [PING, PONG]) {
    const connection = rawConnection(t, limited)
    connection.send(HANDSHAKE + frame(opcode, 'x').repeat(20))
    await connection.until('\r\n\r\n')
    connection.send(frame(TEXT, ping(1)))
    await connection.until(/rate_limited|pong/)
    connection.send(frame(opcode, 'x').repeat(2000))
    const text = await connection.closed
    t.equal(framesOf(text).at(-1)?.payload.readUInt16BE(0), 1008, `opcode ${opcode}`)
  }
})

attack('connections that go without a word', async t => {
  const clients = await Promise.all(Array.from({ length: 50 }, () => connect(t, server)))
  for (const client of clients) await client.do('subscribe', { topics: ['gone', 'gone/*'] })
  for (const client of clients) await client.do('join', { topic: 'gone' })
  for (const client of clients) client.ws.terminate()
  await eventually(
    () => server.app.ringside.broker.roster.members('gone').length,
    count => count === 0,
    'nobody to be left'
  )
})

// An answer that is still on its way must not be overtaken: what would upgrade behind it is answered in its turn.
attack('a handshake behind a request that is not answered yet', async t => {
  const connection = rawConnection(t, server)
  connection.send(
    `GET /events/slow?wait=1 HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n${HANDSHAKE}`
  )
  const text = await connection.until('426 Upgrade Required')
  t.match(text, /^HTTP\/1\.1 200 /)
  connection.destroy()
  const after = rawConnection(t, server)
  after.send('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await after.until('"ok"}')
  after.send(HANDSHAKE)
  await after.until('101 Switching Protocols')
  after.destroy()
})

t.test('a handshake that comes to its end while the server closes is told when to come back', async t => {
  const closing = await build(t)
  const late = rawConnection(t, closing)
  late.send('GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /ws HTTP/1.1\r\nHost: localhost\r\n')
  await late.until('HTTP/1.1 200')
  void closing.app.close()
  await eventually(
    () =>
      ask(closing, '/livez').then(
        () => 'open',
        () => 'closed'
      ),
    state => state === 'closed',
    'nobody to be let in any more'
  )
  late.send(
    'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
  )
  const text = (await late.closed).split('HTTP/1.1 ').at(-1)!
  t.match(text, /^503 /)
  t.match(text, /\r\nretry-after: \d+\r\n/i)
})

attack('handshakes that are none', async t => {
  for (const request of [
    HANDSHAKE.replace('GET', 'POST'),
    HANDSHAKE.replace('websocket', 'websocket, foo'),
    HANDSHAKE.replace('GET /ws', 'GET /ws/'),
    HANDSHAKE.replace('GET /ws', 'GET /%77s/../ws'),
    HANDSHAKE.replace('GET /ws', 'GET /events/a?wait=1'),
    HANDSHAKE.replace('Key: d', 'Key: d\u0001'),
    HANDSHAKE.replace('Version: 13', 'Version: 13\r\nSec-WebSocket-Version: 8'),
    HANDSHAKE.replace('Host: localhost', 'Host: localhost\r\nContent-Length: 5')
  ]) {
    const connection = rawConnection(t, server)
    connection.send(request)
    t.notMatch(await connection.until(/^HTTP\/1\.1 \d/), / 101 | 5\d\d /, JSON.stringify(request))
    connection.destroy()
  }
  const upper = rawConnection(t, server)
  upper.send(
    HANDSHAKE.replace('websocket', 'WebSocket').replace(
      'Connection: Upgrade',
      'connection: keep-alive, upgrade'
    )
  )
  await upper.until('101 Switching Protocols') // names are not told apart by their case
  upper.destroy()
})

// --- messages ---

attack('names that every object has', async t => {
  const client = await connect(t, server)
  await client.do('subscribe', { topics: ['__proto__', 'constructor', 'toString/hasOwnProperty'] })
  for (const op of ['__proto__', 'constructor', 'toString', 'hasOwnProperty']) {
    t.match(await client.ask(op), { op: 'error', code: 'bad_request' })
  }
  client.ws.send('{"__proto__":{"op":"ping","ref":500}}')
  await client.first('error', ({ ref }) => ref === null)
  client.ws.send('{"op":"publish","ref":501,"topic":"constructor","data":{"__proto__":{"polluted":true}}}')
  await client.answer(501)
  client.ws.send('{"op":"join","ref":502,"topic":"__proto__","info":{"__proto__":{"polluted":true}}}')
  t.match(await client.answer(502), { op: 'ok' })
  t.notOk('polluted' in {})
  const binary = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
  binary.ws.send(
    encode(
      new Map([
        [
          '__proto__',
          new Map([
            ['op', 'ping'],
            ['ref', '1']
          ])
        ]
      ])
    )
  )
  await binary.first('error')
  binary.ws.send(
    encode(
      new Map<string, unknown>([
        ['op', 'publish'],
        ['ref', 1],
        ['topic', 'constructor'],
        ['data', new Map([['__proto__', 1]])]
      ])
    )
  )
  t.match(await binary.answer(1), { op: 'ok' })
  await client.until(2)
  t.match(
    client.messages.all.filter(({ op }) => op === 'event').map(({ data }) => JSON.stringify(data)),
    ['{"__proto__":{"polluted":true}}', '{"__proto__":1}']
  )
  for (const each of [client, binary]) each.close()
})

attack('deep nesting, over both, to both', async t => {
  const json = await connect(t, server)
  const cbor = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
  for (const client of [json, cbor]) await client.do('subscribe', { topics: ['deep'] })
  for (const levels of [100, 20_000]) {
    const deep = '['.repeat(levels) + ']'.repeat(levels)
    for (const message of [
      `{"op":"publish","ref":${levels},"topic":"deep","data":${deep}}`,
      `{"op":${deep},"ref":1}`,
      `{"op":"subscribe","ref":1,"topics":${deep}}`,
      deep
    ]) {
      json.ws.send(message)
    }
    t.match(await json.answer(levels), { op: 'ok' })
    await json.messages.until(() => json.events.length === (levels === 100 ? 1 : 2), 'it')
    await cbor.messages.until(() => cbor.events.length === json.events.length, 'it')
  }
  t.equal(cbor.events[0]!['data'] instanceof Array, true)
  t.type(cbor.events[1]!['data'], 'string', 'what is too deep stays text')
  for (const levels of [200, 90_000]) {
    cbor.ws.send(
      Buffer.concat([
        Buffer.from('a4626f70677075626c69736863726566', 'hex'),
        encode(levels),
        Buffer.from('65746f706963646465657064646174 61'.replaceAll(' ', ''), 'hex'),
        Buffer.alloc(levels, 0x81),
        Buffer.from([0])
      ])
    )
  }
  t.match(await cbor.answer(200), { op: 'ok' })
  await cbor.first('error', ({ message }) => /too deeply/.test(String(message)))
  for (const each of [json, cbor]) each.close()
})

attack('text in CBOR that is no UTF-8, or begins with a byte order mark', async t => {
  const client = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
  const reader = await connect(t, server)
  await reader.do('subscribe', { topics: ['text'] })
  const publishing = (ref: number, text: string) =>
    Buffer.concat([
      Buffer.from('a4', 'hex'),
      ...['op', 'publish', 'ref', ref, 'topic', 'text', 'data'].map(each => Buffer.from(encode(each))),
      Buffer.from(text, 'hex')
    ])
  for (const [index, text] of ['62fffe', '61ff', '64f0808080', '63eda080', '7803e282e2'].entries()) {
    client.ws.send(publishing(index, text))
    await client.messages.until(() => client.messages.all.length === index + 1, 'an answer')
    t.match(
      client.messages.all.at(-1),
      { op: 'error', ref: null, code: 'bad_request', message: /CBOR/ },
      text
    )
  }
  client.ws.send(publishing(100, '64efbbbf78'))
  t.match(await client.answer(100), { op: 'ok' })
  t.strictSame(
    (await reader.until(1)).map(({ data }) => data),
    ['\ufeffx']
  )
  for (const each of [client, reader]) each.close()
})

attack('CBOR as other libraries write it', async t => {
  const client = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
  // cbor-x and cbor write what has no value
  await client.do('subscribe', { topics: ['tagged'], after: undefined })
  const publish = async (data: unknown) => {
    const before = client.events.length
    t.match(await client.ask('publish', { topic: 'tagged', data }), { op: 'ok' })
    return (await client.until(before + 1)).at(-1)!['data']
  }
  const bytes = Buffer.from([0, 1, 255])
  t.strictSame(Buffer.from((await publish(new Tagged(64, bytes))) as Uint8Array), bytes, 'a Uint8Array')
  t.equal(await publish(new Tagged(2, Buffer.from('002bdc545d6b4b87', 'hex'))), 12345678901234567n)
  t.equal(await publish(new Tagged(3, Buffer.from('7fffffffffffffff', 'hex'))), -9223372036854775808n)
  t.equal(await publish(new Tagged(2, new Uint8Array())), 0)
  t.strictSame(await publish({ a: undefined, b: [undefined, new Tagged(2, new Uint8Array([7]))] }), {
    b: [null, 7]
  })
  client.ws.send(encode(new Tagged(55799, { op: 'ping', ref: 'self-described' })))
  t.match(await client.answer('self-described'), { op: 'pong' })

  const large = new Tagged(2, new Uint8Array(60_000).fill(255))
  for (const [data, says] of [
    [{ when: new Tagged(1, 1.5) }, /^data\/when has the CBOR tag 1, which is not understood$/],
    [new Tagged(57343, [1, 2]), /^data has the CBOR tag 57343/],
    [large, /^data is a whole number of more than 64 bits$/],
    [new Tagged(3, new Uint8Array(9).fill(255)), /more than 64 bits/],
    [undefined, /data/]
  ] as const)
    t.match(await client.ask('publish', { topic: 'tagged', data }), {
      code: 'bad_request',
      message: says
    })
  for (const data of [new Tagged(64, 'text'), new Tagged(2, [1])]) {
    client.send({ op: 'publish', ref: 1, topic: 'tagged', data })
    await client.first('error', ({ ref, message }) => ref === null && /is bytes/.test(String(message)))
  }
  client.close()
})

attack('CBOR that says more than there is, or what nobody understands', async t => {
  for (const hex of [
    ...[
      '',
      '9b7fffffffffffffff',
      'bb7fffffffffffffff',
      '5b7fffffffffffffff',
      '7b7fffffffffffffff',
      'bf',
      '9f'
    ],
    ...['a1626f70', 'a2626f706470696e67626f706470696e67', 'c1a0', 'f7', 'f0', 'ff', 'a0a0', '1c', 'a1f6f6'],
    ...['a1626f7062fffe', 'a10102', '626f70', '80', 'd9d9f7a0']
  ]) {
    const client = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
    client.ws.send(Buffer.from(hex, 'hex'))
    t.match(await client.first('error'), { ref: null, code: 'bad_request' }, hex)
    await client.do('ping')
    client.close()
  }
  const client = await connect(t, server, { protocols: ['ringside.v1.cbor'] })
  await client.do('subscribe', { topics: ['odd'] })
  for (const [data, code] of [
    [NaN, 'bad_request'],
    [Infinity, 'bad_request'],
    [{ inner: new Uint8Array(3) }, 'bad_request'],
    [[[new Uint8Array(3)]], 'bad_request'],
    [new Map([[1, 2]]), 'bad_request'],
    ['\ufffd', undefined],
    [{ '': 1, 'a/b': [] }, undefined],
    [18446744073709551615n, undefined],
    [-18446744073709551616n, undefined],
    [-0.5, undefined]
  ] as const) {
    const answer = await client.ask('publish', { topic: 'odd', data })
    t.equal(answer['code'], code, String(answer['message']))
  }
  t.strictSame(
    (await client.until(5)).map(({ data }) => data),
    ['\ufffd', { '': 1, 'a/b': [] }, 18446744073709551615n, -18446744073709551616n, -0.5]
  )
  client.close()
})

/** Members that messages have, with what they should be, and with anything. */
const anything = fc.oneof(
  fc.json().map(text => JSON.parse(text) as unknown),
  fc.constantFrom<unknown>(
    'a',
    's/*',
    ['a'],
    ['a', 'a/*'],
    0,
    -1,
    1.5,
    null,
    '',
    {},
    [],
    true,
    'x'.repeat(300)
  )
)
const anyMessage = fc.oneof(
  { weight: 1, arbitrary: anything },
  {
    weight: 6,
    arbitrary: fc.record(
      {
        op: fc.oneof(
          {
            weight: 9,
            arbitrary: fc.constantFrom(
              'subscribe',
              'unsubscribe',
              'publish',
              'signal',
              'join',
              'leave',
              'read',
              'ping'
            )
          },
          { weight: 1, arbitrary: anything }
        ),
        ref: fc.oneof(fc.nat(), fc.string(), anything),
        topic: fc.oneof(fc.constantFrom('f/1', 'f/2', 'g'), anything),
        topics: fc.oneof(fc.constantFrom(['f/1'], ['f/*'], ['g', 'f/2']), anything),
        data: anything,
        info: anything,
        after: anything,
        rewind: anything,
        rate: anything,
        key: anything,
        type: anything,
        ids: anything
      },
      { requiredKeys: ['op', 'ref'] }
    )
  }
)

for (const protocol of ['ringside.v1.json', 'ringside.v1.cbor'] as Protocol[]) {
  attack(`any message at all, ${protocol}`, async t => {
    const bytesOf = (message: unknown) =>
      protocol === 'ringside.v1.cbor' ? Buffer.from(encode(message)) : JSON.stringify(message)
    let asked = 0
    await fc.assert(
      fc.asyncProperty(fc.array(anyMessage, { maxLength: 80, size: 'max' }), async messages => {
        const client = await connect(t, server, { protocols: [protocol], path: '/ws?user=fuzz' })
        for (const message of messages) client.ws.send(bytesOf(message))
        asked += messages.length
        await isServed(client, messages.length)
      }),
      { numRuns: 60, seed: 20260131 }
    )
    t.ok(asked > 1000, `${asked} messages`)
  })

  attack(`bytes that were messages, ${protocol}`, async t => {
    const message = bytes({ op: 'subscribe', ref: 1, topics: ['a', 'b/*'], after: '1-0', rate: 2 })
    function bytes(value: unknown): Buffer {
      return protocol === 'ringside.v1.cbor' ? Buffer.from(encode(value)) : Buffer.from(JSON.stringify(value))
    }
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.uint8Array({ maxLength: 60 }).map(array => Buffer.from(array)),
            fc.tuple(fc.nat(message.length - 1), fc.nat(255)).map(([at, byte]) => {
              const copy = Buffer.from(message)
              copy[at] = byte
              return copy
            }),
            fc.nat(message.length).map(length => message.subarray(0, length))
          ),
          { maxLength: 60, size: 'max' }
        ),
        async all => {
          const client = await connect(t, server, { protocols: [protocol] })
          const binary = protocol === 'ringside.v1.cbor'
          // text that is no UTF-8 ends the connection, and has a test of its own
          for (const each of all) client.ws.send(binary ? each : each.toString(), { binary })
          await isServed(client, all.length)
        }
      ),
      { numRuns: 60, seed: 20260131 }
    )
  })
}

/** Every message is answered, each with an answer that is one; then the connection still works. */
async function isServed(client: WsClient, count: number): Promise<void> {
  const answers = () => client.messages.all.filter(({ op }) => ['ok', 'pong', 'error'].includes(op))
  await client.messages.until(() => answers().length >= count, `${count} answers`)
  const wrong = answers().find(answer => answer.op === 'error' && !isError(answer))
  if (wrong) throw new Error(`no error as it should be: ${JSON.stringify(wrong)}`)
  client.send({ op: 'ping', ref: 'the last one' })
  await client.answer('the last one')
  client.ws.terminate()
  await client.closed
}

function isError({ ref, code, message }: Message): boolean {
  return (
    (ref === null || ['string', 'number'].includes(typeof ref)) &&
    ['bad_request', 'forbidden', 'too_large'].includes(String(code)) &&
    typeof message === 'string' &&
    message !== '' &&
    !/\bat .*:\d+:\d+|node_modules/.test(message)
  )
}

// Who floods is refused and sent away; everybody else is served meanwhile.
attack('a flood from many connections', async t => {
  const limited = await build(t, { JWT_SECRET: SECRET, ANONYMOUS_SUBSCRIBE: 'calm' })
  const bystander = await connect(t, limited)
  await bystander.do('subscribe', { topics: ['calm'] })
  const flooders = await Promise.all(
    Array.from({ length: 20 }, async (_, index) => {
      const token = await tokenFor({ publish: ['flood'] }, `flooder ${index}`)
      return connect(t, limited, { headers: bearer(token) })
    })
  )
  const message = JSON.stringify({ op: 'publish', ref: 1, topic: 'flood', data: 'x'.repeat(1000) })
  for (const client of flooders) for (let count = 0; count < 2000; count++) client.ws.send(message)
  let slowest = 0
  for (let count = 0; count < 10; count++) {
    const started = performance.now()
    await limited.app.ringside.publish('calm', { data: String(count) })
    await bystander.until(count + 1)
    slowest = Math.max(slowest, performance.now() - started)
  }
  t.ok(slowest < 5000, `at most ${slowest} ms for a bystander`)
  for (const client of flooders) t.equal((await client.closed).code, 1008)
  const { log } = limited.app.ringside.broker
  const stored = await log.range('flood', log.birth, 1_000_000)
  t.ok(stored.events.length <= 20 * 150, `${stored.events.length} of 40000 were stored`)
})

attack('refusals that nobody hangs up on', async t => {
  const closed = await build(t, { JWT_SECRET: SECRET })
  const handshake = [
    ...['GET /ws HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: websocket'],
    ...['Sec-WebSocket-Version: 13', `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`]
  ].join('\r\n')
  for (const [header, status] of [
    ['Accept: */*', 401],
    ['Authorization: Bearer a.b.c', 401],
    [`Cookie: ringside_token=${await tokenOf()}\r\nOrigin: https://evil.example`, 403],
    [`Authorization: Bearer ${await tokenOf()}\r\nSec-WebSocket-Protocol: chat`, 400]
  ] as const) {
    const connection = rawConnection(t, closed)
    connection.send(`${handshake}\r\n${header}\r\n\r\n`)
    t.match(await connection.closed, new RegExp(`^HTTP/1.1 ${status} [^]*"detail":.*}$`))
  }
})
