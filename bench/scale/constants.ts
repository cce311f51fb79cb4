/** What the model stands on: figures of the measured tables of docs/, each of which says where it is from. */

export interface Constant {
  readonly meaning: string
  readonly unit: string
  /** The page of docs/, the heading of its table, the row and the column; what it is made of, where that is more than one. */
  readonly source: string
  /** Null as long as it has not been measured. */
  readonly value: number | null
}

export interface Pages {
  /** docs/performance.md */
  readonly performance: string
  /** docs/stores.md */
  readonly stores: string
}

export type Constants = Readonly<Record<Name, Constant>>

type Name =
  | 'delivery'
  | 'deliveryTls'
  | 'gzipDelivery'
  | 'bytes'
  | 'gzipBytes'
  | 'stream'
  | 'tlsStream'
  | 'process'
  | 'opening'
  | 'ownEvent'
  | 'publish'
  | 'redisEvent'
  | 'ring'

const RINGSIDE = '**Ringside**'

/** Reads them. Throws when a table, a row or a column is not where it was. */
export function readConstants({ performance, stores }: Pages): Constants {
  const at = (table: string, column: string, row = RINGSIDE) => cellOf(performance, table, row, column)
  return {
    delivery: {
      meaning: 'processor time of a delivery, one event at a time',
      unit: 'µs',
      source: 'fan-out: Ringside',
      value: at('fan-out', 'CPU a delivery, µs')
    },
    deliveryTls: {
      meaning: 'the same over TLS that Ringside does itself',
      unit: 'µs',
      source: 'fan-out: Ringside, TLS',
      value: at('fan-out', 'CPU a delivery, µs', 'Ringside, TLS')
    },
    gzipDelivery: {
      meaning: 'by how much a compressed delivery takes longer',
      unit: '×',
      source: 'compression: gzip, µs ÷ CPU a delivery',
      value: at('compression', 'gzip, µs') / at('compression', 'CPU a delivery, µs')
    },
    bytes: {
      meaning: 'bytes of a stream for an event',
      unit: 'B',
      source: 'compression: bytes a delivery',
      value: at('compression', 'bytes a delivery')
    },
    gzipBytes: {
      meaning: 'the same compressed',
      unit: 'B',
      source: 'compression: gzip',
      value: at('compression', 'gzip')
    },
    stream: {
      meaning: 'memory of a stream with a topic of its own',
      unit: 'KiB',
      source: 'many-topics: a stream and its topic',
      value: at('many-topics', 'a stream and its topic, KiB')
    },
    tlsStream: {
      meaning: 'what TLS in Ringside adds to it',
      unit: 'KiB',
      source: 'idle: Ringside, TLS, less Ringside',
      value: at('idle', 'a stream, KiB', 'Ringside, TLS') - at('idle', 'a stream, KiB')
    },
    process: {
      meaning: 'memory of a process without streams',
      unit: 'MiB',
      source: 'hundred-thousand: the server less its streams, in seven',
      value: processMemory(performance)
    },
    opening: {
      meaning: 'processor time of opening a stream',
      unit: 'µs',
      source: 'connect-storm: CPU a stream',
      value: at('connect-storm', 'CPU a stream, µs')
    },
    ownEvent: {
      meaning: 'processor time of an event to one client, published in batches of 50',
      unit: 'µs',
      source: 'many-topics: an event to one',
      value: at('many-topics', 'an event to one, µs')
    },
    publish: {
      meaning: 'processor time of an instance to take an event in, in batches of 50, over Redis',
      unit: 'µs',
      source: 'publish-redis: a second ÷ HTTP, 50',
      value: 1e6 / at('publish-redis', 'HTTP, 50')
    },
    redisEvent: {
      meaning: 'processor time of Redis to store an event, in batches of 50',
      unit: 'µs',
      source: 'publish-redis: a second ÷ broker, 50',
      value: 1e6 / at('publish-redis', 'broker, 50')
    },
    ring: {
      meaning: 'memory of Redis for a topic with one event',
      unit: 'kB',
      source: '[stores](stores.md): Redis 7.0.15, Ring of 1',
      value: cellOf(stores, 'Stores', 'Redis 7.0.15', 'Ring of 1') / 1000
    }
  }
}

/** Of the supervisor and its six workers each, once the table is there. */
function processMemory(performance: string): number | null {
  const table = 'hundred-thousand'
  if (sectionOf(performance, table) === null) return null
  const at = (column: string) => cellOf(performance, table, RINGSIDE, column)
  return (at('server, MiB') - (at('streams') * at('a stream, KiB')) / 1024) / 7
}

/** The mean of the figures of a cell: `5.95 / 5.97 (1.23×)` is 5.96. Of columns of one title it is the first. */
function cellOf(page: string, table: string, row: string, column: string): number {
  const rows = (sectionOf(page, table) ?? '')
    .split('\n')
    .filter(line => line.startsWith('|'))
    .map(line =>
      line
        .slice(1, -1)
        .split('|')
        .map(cell => cell.trim())
    )
  const at = rows[0]?.indexOf(column) ?? -1
  const cell = rows.find(([label]) => label === row)?.[at]
  const figures = (cell ?? '')
    .replace(/\(.*\)/, '')
    .split('/')
    .map(each => Number.parseFloat(each.replaceAll(',', '')))
  const mean = figures.reduce((sum, each) => sum + each, 0) / figures.length
  if (!Number.isFinite(mean))
    throw new Error(`there is no figure in the table ${table}, row ${row}, column ${column}`)
  return mean
}

/** What stands below a heading, up to the next one; null when there is none. */
function sectionOf(page: string, heading: string): string | null {
  const [, found] = page.split(new RegExp(`^#+ ${heading}$`, 'm'))
  return found?.split(/^#+ /m)[0] ?? null
}
