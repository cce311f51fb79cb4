import { mkdir, statfs } from 'node:fs/promises'
import { ClassicLevel, type ChainedBatch, type OpenOptions } from 'classic-level'
import { StoreDamaged } from './damaged.ts'
import type { KeyRange } from './records.ts'

/** A store that can't be opened, or not be used: the message says why, in a line for the operator. */
export class StoreUnusable extends Error {
  override name = 'StoreUnusable'
}

export type Database = ClassicLevel<Buffer, Buffer>
export type Batch = ChainedBatch<Database, Buffer, Buffer>

/** No compression: what is published is small, and most of it is read while it still lies in the cache. */
const OPTIONS: OpenOptions = {
  compression: false,
  cacheSize: 16 * 1024 * 1024,
  writeBufferSize: 8 * 1024 * 1024
}

/** How much must be free before a store that was full is written to again, in bytes: what opening it may write. */
const ROOM = 32 * 1024 * 1024

/** The database in a folder, which may be closed and opened anew while questions wait. Knows nothing of what lies in it. */
export class Store {
  readonly folder: string
  #database: Database
  /** Resolves once the database that is being opened anew is open. */
  #ready: Promise<void> = Promise.resolve()

  private constructor(folder: string, database: Database) {
    this.folder = folder
    this.#database = database
  }

  /**
   * Opens the store in a folder, which is made where there is none. Rejects with `StoreUnusable`, and with `StoreDamaged`
   * where LevelDB finds its own files damaged.
   */
  static async open(folder: string, options?: { create: boolean }): Promise<Store> {
    try {
      if (options?.create ?? true) await mkdir(folder, { recursive: true })
      return new Store(folder, await openDatabase(folder, options?.create ?? true))
    } catch (error) {
      throw explained(error)
    }
  }

  /** A batch that `write` takes. Added to one by one: handed over as a list, each record costs five times as much. */
  batch(): Batch {
    return this.#database.batch()
  }

  /** Writes all of a batch or nothing; flushed to the disk once it resolves, when `sync`. Rejects with the system's error. */
  async write(batch: Batch, sync: boolean): Promise<void> {
    await batch.write({ sync })
  }

  async put(key: Buffer, value: Buffer, sync = false): Promise<void> {
    await this.#database.put(key, value, { sync })
  }

  async get(key: Buffer): Promise<Buffer | undefined> {
    await this.#ready
    return this.#database.get(key).catch(rethrow)
  }

  async getMany(keys: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    if (keys.length === 0) return []
    await this.#ready
    return this.#database.getMany([...keys]).catch(rethrow)
  }

  /** At most so many keys of a range, in order. */
  async keys(range: KeyRange, limit: number): Promise<Buffer[]> {
    await this.#ready
    return this.#database
      .keys({ ...range, limit })
      .all()
      .catch(rethrow)
  }

  /** At most so many records of a range, in order, or in the opposite one. */
  async entries(range: KeyRange, limit: number, reverse = false): Promise<[key: Buffer, value: Buffer][]> {
    await this.#ready
    return this.#database
      .iterator({ ...range, limit, reverse })
      .all()
      .catch(rethrow)
  }

  /** All records of a range, in order, by parts. */
  async *parts(range: KeyRange): AsyncGenerator<[key: Buffer, value: Buffer][]> {
    await this.#ready
    const iterator = this.#database.iterator(range)
    try {
      for (;;) {
        const part = await iterator.nextv(1000).catch(rethrow)
        if (part.length === 0) return
        yield part
      }
    } finally {
      await iterator.close()
    }
  }

  /** How many bytes its files take. */
  async bytes(): Promise<number> {
    await this.#ready
    return this.#database.approximateSize(Buffer.of(0), Buffer.of(255))
  }

  /** Whether there is room again on the disk. */
  async hasRoom(): Promise<boolean> {
    const { bavail, bsize } = await statfs(this.folder)
    return bavail * bsize > ROOM
  }

  /**
   * Closes the database and opens it again. After a write has failed this is the only way to write on: what came
   * after a torn record in the log could not be read after a crash. Questions wait meanwhile.
   */
  async reopen(): Promise<void> {
    const opened = this.#reopen()
    // a question that has waited in vain is answered by the database that is closed
    this.#ready = opened.catch(() => {})
    await opened
  }

  async #reopen(): Promise<void> {
    try {
      await this.#database.close()
      this.#database = await openDatabase(this.folder, false)
    } catch (error) {
      throw explained(error)
    }
  }

  async close(): Promise<void> {
    await this.#database.close()
  }
}

async function openDatabase(folder: string, createIfMissing: boolean): Promise<Database> {
  const database = new ClassicLevel<Buffer, Buffer>(folder, {
    keyEncoding: 'buffer',
    valueEncoding: 'buffer'
  })
  await database.open({ ...OPTIONS, createIfMissing })
  return database
}

/** Says in a line why a store can't be opened. */
function explained(error: unknown): Error {
  const { code, message, cause } = error as NodeJS.ErrnoException & { cause?: NodeJS.ErrnoException }
  const reason = cause ?? { code, message }
  if (reason.code === 'LEVEL_LOCKED') return new StoreUnusable('another process is using it')
  if (reason.code === 'LEVEL_CORRUPTION') return new StoreDamaged(reason.message)
  return new StoreUnusable(reason.message)
}

/** What LevelDB finds damaged is a damage like those that we find. */
function rethrow(error: unknown): never {
  const { code, message } = error as NodeJS.ErrnoException
  throw code === 'LEVEL_CORRUPTION' ? new StoreDamaged(message) : error
}
