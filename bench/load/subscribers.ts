import type { Socket } from 'node:net'
import type { Peer, StreamOptions } from '../peer.ts'
import { dial } from './dial.ts'
import { FrameReader, PREFACE, requestFrame, SETTINGS_ACK } from './http2.ts'
import { EVENT_SIZE, MARKER, now, numberAt, STAMP, timeAt } from './event.ts'
import { Samples } from './samples.ts'

/** Every so many events one is asked when it was published; a prime, so that it falls on all subscribers alike. */
const SAMPLE = 31

const CHUNK = 64 * 1024

/** What is read is looked at before the next is read, so that all sockets read into the same bytes. */
const memory = Buffer.alloc(CHUNK + 1)
const chunk = memory.subarray(0, CHUNK)

/** Source addresses: a pair of addresses has no more than some 28,000 ports. */
export const SOURCES = 20

let connections = 0

/** How many streams share a connection of HTTP/2; browsers and proxies allow as many. */
const STREAMS_A_CONNECTION = 100

export interface OpenOptions extends StreamOptions {
  /** How many connect at a time. */
  readonly concurrency?: number
  /** Whether each connection serves a page before it becomes a stream, as a browser's does. */
  readonly page?: boolean
  /** Whether each subscriber's events are looked at one by one: that they come in order, and that gaps are told. */
  readonly checked?: boolean
  /** Makes the n-th subscriber's own options. */
  readonly each?: (index: number) => StreamOptions
}

/**
 * Many subscribers, counted as cheaply as can be: bare sockets that look for a marker in what comes. What they cost
 * must not be what is measured.
 */
export class Subscribers {
  /** Events that came, on all streams. */
  events = 0
  /** Bytes that came on streams that have begun, with all that delimits them. */
  bytes = 0
  /** Streams that are open. */
  streams = 0
  /** Streams that the server ended or never began, and why the last of them failed. */
  ended = 0
  refused = 0
  refusal = ''
  /** Only of checked ones: gaps that were told, and events that were missing or came twice without a word. */
  gaps = 0
  wrong = 0
  readonly latency = new Samples()
  readonly sockets = new Set<Socket>()
  /** What each stream began with. */
  lastHead = ''
  /** When so many events have come, this is called. */
  threshold = Infinity
  reached: () => void = () => {}
  readonly #peer: Peer
  readonly #port: number
  #countdown = SAMPLE
  /** How far apart the last two markers were. */
  #stride = EVENT_SIZE

  constructor(peer: Peer, port: number) {
    this.#peer = peer
    this.#port = port
  }

  /** Opens so many streams, as fast as they come; resolves when each has begun or was refused. */
  async open(count: number, options: OpenOptions = {}): Promise<void> {
    const { concurrency = 128, each = () => ({}) } = options
    const together = this.#peer.transport === 'http2' ? STREAMS_A_CONNECTION : 1
    let next = 0
    const some = async () => {
      while (next < count) {
        const length = Math.min(together, count - next)
        const streams = Array.from({ length }, () => ({ ...options, ...each(next++) }))
        await (this.#peer.transport === 'http2' ? this.#openOnHttp2(streams) : this.#openOne(streams[0]!))
      }
    }
    await Promise.all(Array.from({ length: Math.min(concurrency, count) }, some))
  }

  /** Connections vanish, all unless some are named; `reset`: without a FIN. */
  async close(reset = false, sockets: Iterable<Socket> = this.sockets): Promise<void> {
    await Promise.all(
      [...sockets].map(
        socket =>
          new Promise<void>(resolve => {
            socket.once('close', () => resolve())
            if (reset && !socket.writableEnded) socket.resetAndDestroy()
            else socket.destroy()
          })
      )
    )
  }

  stopReading(): void {
    for (const socket of this.sockets) socket.pause()
  }

  readOn(): void {
    for (const socket of this.sockets) socket.resume()
  }

  /** Waits for so many events in all; false when for `patience` milliseconds none came. */
  async received(events: number, patience = 2000): Promise<boolean> {
    let seen = this.events
    let silent = performance.now()
    while (this.events < events) {
      await new Promise(resolve => setTimeout(resolve, 5))
      if (this.events === seen && performance.now() - silent > patience) return false
      if (this.events !== seen) silent = performance.now()
      seen = this.events
    }
    return true
  }

  #openOne(options: OpenOptions): Promise<void> {
    const peer = this.#peer
    const check = options.checked ? this.#checker() : undefined
    let began = false
    let head = ''
    let page = options.page ?? false
    return new Promise(resolve => {
      const take = (size: number) => {
        if (began) {
          this.bytes += size
          this.#count(0, size)
          check?.(size)
          return
        }
        head += chunk.toString('latin1', 0, size)
        if (page) {
          const [answer, length] = /content-length: (\d+)\r\n(?:.+\r\n)*\r\n/i.exec(head) ?? []
          if (!answer || head.length < head.indexOf(answer) + answer.length + Number(length)) return
          page = false
          head = ''
          socket.write(peer.subscribe(options))
        } else if (head.includes(peer.begins)) {
          began = true
          this.#begin(head, 1)
          resolve()
        } else if (peer.greeting && head.includes(peer.greeting.after)) {
          socket.write(peer.greeting.say)
          head = ''
        }
      }
      const socket = this.#connect(take, () => {
        if (began) return this.#end(1)
        this.#refuse(1, head)
        resolve()
      })
      socket.on('connect', () => socket.write(page ? peer.page : peer.subscribe(options)))
    })
  }

  /** Opens many streams on one connection. They count as begun when all of them have. */
  #openOnHttp2(streams: readonly StreamOptions[]): Promise<void> {
    const peer = this.#peer
    const frames = new FrameReader()
    let met = false
    let began = false
    let heads = ''
    return new Promise(resolve => {
      const take = (size: number) => {
        if (!met) socket.write(SETTINGS_ACK)
        met = true
        frames.read(memory, size, (start, end) => {
          if (began) this.#count(start, end)
          else heads += chunk.toString('latin1', start, end)
        })
        if (began || heads.split(peer.begins).length <= streams.length) return
        began = true
        this.#begin(heads, streams.length)
        heads = ''
        resolve()
      }
      const socket = this.#connect(take, () => {
        if (began) return this.#end(streams.length)
        this.#refuse(streams.length, heads)
        resolve()
      })
      const requests = streams.map((options, index) => requestFrame(peer.subscribe(options), index))
      socket.on('connect', () => socket.write(Buffer.concat([PREFACE, ...requests])))
    })
  }

  /** A connection; `take` gets how many bytes lie in `chunk` now, `closed` is called once. */
  #connect(take: (size: number) => void, closed: () => void): Socket {
    const callback = (size: number) => {
      take(size)
      return true
    }
    const socket = dial(this.#peer.transport, {
      port: this.#port,
      localAddress: `127.0.0.${2 + (connections++ % SOURCES)}`,
      onread: { buffer: chunk, callback }
    })
    this.sockets.add(socket)
    socket.on('error', (error: NodeJS.ErrnoException) => (this.refusal = error.code ?? error.message))
    socket.on('close', () => {
      this.sockets.delete(socket)
      closed()
    })
    return socket
  }

  #begin(head: string, streams: number): void {
    this.streams += streams
    this.lastHead = head
    for (const byte of Buffer.from(head, 'latin1')) if (byte === MARKER) this.events++
  }

  #end(streams: number): void {
    this.streams -= streams
    this.ended += streams
  }

  #refuse(streams: number, head: string): void {
    this.refused += streams
    if (head !== '')
      this.refusal = head.slice(0, head.indexOf('\r\n')) + (/"reason":"\w+"/.exec(head)?.[0] ?? '')
  }

  /**
   * The hot loop. The next marker most often lies as far away as the last one did, and where it does there can be none
   * between; else it is searched for, up to one that we put after the last byte.
   */
  #count(start: number, end: number): void {
    const after = memory[end]!
    memory[end] = MARKER
    let found = 0
    let time = 0
    let at = memory.indexOf(MARKER, start)
    while (at < end) {
      found++
      if (--this.#countdown <= 0 && at + STAMP < end) {
        this.#countdown = SAMPLE
        this.latency.add((time ||= now()) - timeAt(memory, at))
      }
      let next = at + this.#stride
      if (next >= end || memory[next] !== MARKER) {
        next = memory.indexOf(MARKER, Math.min(at + EVENT_SIZE, end))
        if (next - at < 2 * EVENT_SIZE) this.#stride = next - at
      }
      at = next
    }
    memory[end] = after
    this.events += found
    if (this.events >= this.threshold) {
      this.threshold = Infinity
      this.reached()
    }
  }

  /** Looks at one subscriber's events one by one. */
  #checker(): (size: number) => void {
    let rest: Buffer = Buffer.alloc(0)
    let last: number | undefined
    let gapBefore = false
    return size => {
      const bytes = Buffer.concat([rest, chunk.subarray(0, size)])
      const end = bytes.lastIndexOf('\n\n') + 2
      const whole = bytes.subarray(0, Math.max(0, end))
      rest = Buffer.from(bytes.subarray(whole.length))
      let gap = whole.indexOf('event: gap')
      for (let at = whole.indexOf(MARKER); at >= 0; at = whole.indexOf(MARKER, at + 1)) {
        while (gap >= 0 && gap < at) {
          this.gaps++
          gapBefore = true
          gap = whole.indexOf('event: gap', gap + 1)
        }
        const number = numberAt(whole, at)
        if (last !== undefined && number !== last + 1 && !(gapBefore && number > last)) this.wrong++
        last = number
        gapBefore = false
      }
      if (gap >= 0) {
        this.gaps++
        gapBefore = true
      }
    }
  }
}
