import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { reset } from '../support/reset.ts'

/** `up`: from the client to the server. */
export type Direction = 'up' | 'down'

/** A TCP proxy that loses connections, bytes' way or time as a network does. */
export class FaultyProxy {
  readonly port: number
  readonly #server: Server
  readonly #target: number
  readonly #pipes = new Set<Pipe>()
  readonly #blocked = new Set<Direction>()
  #delay = 0

  private constructor(server: Server, target: number) {
    this.#server = server
    this.#target = target
    this.port = (server.address() as AddressInfo).port
    server.on('connection', (client: Socket) => this.#join(client))
  }

  /** Before a port of this machine. */
  static async start(target: number): Promise<FaultyProxy> {
    const server = createServer({ noDelay: true })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    return new FaultyProxy(server, target)
  }

  /** Cuts every connection; new ones are taken. */
  cut(): void {
    for (const { from, to } of [...this.#pipes]) {
      reset(from)
      reset(to)
    }
  }

  /** Half-open: connections stay up, also new ones, and nothing comes through in these directions until `open`. */
  block(...directions: Direction[]): void {
    for (const direction of directions) this.#blocked.add(direction)
    this.#steer()
  }

  /** Everything comes through again, what was held back first. */
  open(): void {
    this.#blocked.clear()
    this.#steer()
  }

  /** All bytes take so long from now on, in milliseconds. */
  delay(ms: number): void {
    this.#delay = ms
  }

  async close(): Promise<void> {
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.cut()
    await closed
  }

  #steer(): void {
    for (const pipe of this.#pipes) pipe.block(this.#blocked.has(pipe.direction))
  }

  #join(client: Socket): void {
    const server = connect({ port: this.#target, host: '127.0.0.1', noDelay: true })
    const delay = () => this.#delay
    const pipes = [new Pipe('up', client, server, delay), new Pipe('down', server, client, delay)]
    for (const pipe of pipes) {
      this.#pipes.add(pipe)
      pipe.block(this.#blocked.has(pipe.direction))
      pipe.from.on('close', () => this.#pipes.delete(pipe))
    }
  }
}

/** One direction of a connection. */
class Pipe {
  readonly direction: Direction
  readonly from: Socket
  readonly to: Socket
  readonly #delay: () => number
  /** What has not been passed on yet, in order, and when it shall be. */
  readonly #held: { chunk: Buffer; due: number }[] = []
  #blocked = false
  #timer: NodeJS.Timeout | undefined

  constructor(direction: Direction, from: Socket, to: Socket, delay: () => number) {
    this.direction = direction
    this.from = from
    this.to = to
    this.#delay = delay
    from.on('data', (chunk: Buffer) => {
      this.#held.push({ chunk, due: performance.now() + this.#delay() })
      this.#pass()
    })
    from.on('error', () => {}) // 'close' follows
    from.on('close', () => to.destroy())
  }

  block(blocked: boolean): void {
    this.#blocked = blocked
    if (blocked) this.from.pause()
    else this.from.resume()
    this.#pass()
  }

  #pass(): void {
    clearTimeout(this.#timer)
    while (!this.#blocked && this.#held.length > 0) {
      const left = this.#held[0]!.due - performance.now()
      if (left > 0) {
        this.#timer = setTimeout(() => this.#pass(), Math.ceil(left))
        return
      }
      const { chunk } = this.#held.shift()!
      if (!this.to.destroyed) this.to.write(chunk)
    }
  }
}
