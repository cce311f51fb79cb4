import { mkdir, readdir, readFile, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel, type ChainedBatch, type OpenOptions } from 'classic-level'
import { BrokerUnavailable } from '../unavailable.ts'
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
  writeBufferSize: 8 * 1024 * 1024,
  maxFileSize: 16 * 1024 * 1024
}

/** How much must be free before a store that was full is written to again, in bytes: what opening it may write. */
const ROOM = 32 * 1024 * 1024

/** The file that says how many commits there were when the store was closed last. */
const NOTE = 'COMMITS'

/** The database in a folder. Knows nothing of what lies in it. */
export class Store {
  readonly folder: string
  #database: Database

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

  /** Has LevelDB put together again what it can of a store that it can't open. Rejects with `StoreUnusable`. */
  static async salvage(folder: string): Promise<void> {
    try {
      await ClassicLevel.repair(folder)
    } catch (error) {
      throw new StoreUnusable(explained(error).message)
    }
  }

  /** A batch that `write` takes. Added to one by one: a list costs half as much again. */
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
    return this.#database.get(key).catch(rethrow)
  }

  async getMany(keys: readonly Buffer[]): Promise<(Buffer | undefined)[]> {
    if (keys.length === 0) return []
    return this.#database.getMany([...keys]).catch(rethrow)
  }

  /** At most so many keys of a range, in order. */
  async keys(range: KeyRange, limit: number): Promise<Buffer[]> {
    return this.#database
      .keys({ ...range, limit })
      .all()
      .catch(rethrow)
  }

  /** At most so many records of a range, in order, or in the opposite one. */
  async entries(range: KeyRange, limit: number, reverse = false): Promise<[key: Buffer, value: Buffer][]> {
    return this.#database
      .iterator({ ...range, limit, reverse })
      .all()
      .catch(rethrow)
  }

  /** All records of a range, in order, by parts. */
  async *parts(range: KeyRange): AsyncGenerator<[key: Buffer, value: Buffer][]> {
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

  /** Deletes all records. */
  async clear(): Promise<void> {
    await this.#database.clear()
  }

  /** How many bytes its files take. */
  async bytes(): Promise<number> {
    const names = await readdir(this.folder)
    // one may be gone by now
    const sizes = names.map(async name => (await stat(join(this.folder, name)).catch(() => null))?.size ?? 0)
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0)
  }

  /** Gives the room back of what was deleted in a range. Readers and writers go on meanwhile. */
  async compact({ gte, lt }: { gte: Buffer; lt: Buffer }): Promise<void> {
    await this.#database.compactRange(gte, lt)
  }

  /**
   * Notes how many commits there have been, in a file beside the database: without it, a log whose end is damaged could not
   * be told from one that was torn while it was written, as a crash leaves it.
   */
  async note(commits: number): Promise<void> {
    await writeFile(join(this.folder, NOTE), `${commits}\n`, { flush: true })
  }

  /** The number that was noted last; 0 where none was. */
  async noted(): Promise<number> {
    const text = await readFile(join(this.folder, NOTE), 'latin1').catch(() => '')
    return Number(/^(\d+)\n$/.exec(text)?.[1] ?? 0)
  }

  /** Whether there is room again on the disk. */
  async hasRoom(): Promise<boolean> {
    const { bavail, bsize } = await statfs(this.folder)
    return bavail * bsize > ROOM
  }

  /**
   * Closes the database and opens it again. After a write has failed this is the only way to write on: what came
   * after a torn record in the log could not be read after a crash. Questions meanwhile reject with `BrokerUnavailable`.
   */
  async reopen(): Promise<void> {
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

/** What LevelDB finds damaged is a damage like those that we find; and it may be closed while it is asked. */
function rethrow(error: unknown): never {
  const { code = '', message } = error as NodeJS.ErrnoException
  if (code === 'LEVEL_CORRUPTION') throw new StoreDamaged(message)
  throw code.endsWith('_NOT_OPEN') ? new BrokerUnavailable('the store is being opened again') : error
}
