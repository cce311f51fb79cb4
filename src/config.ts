import { availableParallelism } from 'node:os'
import { Type, type StaticDecode, type TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { Duration, Flag, Flushing, List, Origins, PemFile, Secret, Size, Whole } from './config/kinds.ts'

/** What a timer can wait: 2^31 milliseconds. */
const MOST = '24d'

const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const

/** Every setting, by the name of its environment variable: what it is, its default, what is allowed. */
export const Settings = Type.Object({
  HOST: Type.String({
    default: '127.0.0.1',
    minLength: 1,
    description: 'Address to listen on',
    pattern: '^([A-Za-z0-9._-]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(%[^\\s/]+)?)$',
    allowed: 'an address or a name, without scheme, port or brackets'
  }),
  PORT: Whole(3000, 0, 65535, 'Port to listen on; 0 takes a free one'),
  INSECURE: Flag(false, 'Listen beyond loopback although everyone may do everything'),
  JWT_SECRET: Secret('Checks tokens of HS256'),
  JWT_PUBLIC_KEY: Type.String({
    default: '',
    description: 'Checks tokens of RS256, ES256 or EdDSA, by the kind of the key',
    allowed: 'a public key in PEM or a file with one: RSA (2048 bits or more), P-256 or Ed25519'
  }),
  JWKS_URL: Type.String({
    default: '',
    description: 'Where the keys are that check tokens of RS256, ES256 or EdDSA',
    pattern: '^(https?://\\S+)?$',
    allowed: 'an https or http URL of a JSON Web Key Set'
  }),
  JWT_AUDIENCE: List('Of these audiences a token must have one in `aud`'),
  JWT_ISSUER: List('One of these must have issued a token, by its `iss`'),
  JWT_CLOCK_TOLERANCE: Duration(
    '5s',
    'By how much the clocks of who issues tokens and of the server may differ',
    '0',
    '5m'
  ),
  ANONYMOUS_SUBSCRIBE: List('Patterns of what may be read without a token, such as public/**'),
  REDIS_URL: Type.String({
    default: '',
    description: 'Redis or Valkey, Sentinel or Cluster; without it the embedded memory broker',
    allowed:
      'redis://host:6379/0, rediss://…, redis://host,host,… (Cluster), redis+sentinel://host,…/name or unix:///socket'
  }),
  REDIS_TLS_CA: PemFile(
    'Who vouches for the certificates of Redis, with rediss://; default: whom Node trusts'
  ),
  REDIS_TLS_CERT: PemFile('Certificate that is shown to Redis, with rediss://'),
  REDIS_TLS_KEY: PemFile('Key of REDIS_TLS_CERT'),
  REDIS_SENTINEL_PASSWORD: Type.String({
    default: '',
    description: 'Password of the Sentinels; the one in REDIS_URL is for Redis alone',
    allowed: 'a text'
  }),
  KEY_PREFIX: Type.String({
    default: 'ringside:',
    description: 'What every key in Redis begins with, so that two systems can share one',
    pattern: '^[^{}\\s]{0,64}$',
    allowed: 'up to 64 characters, no braces or white space'
  }),
  WORKERS: Type.Decode(
    Type.String({
      default: '1',
      description: 'Processes on one port, with Redis; auto: one for each core',
      pattern: '^(auto|[1-9]|[1-5][0-9]|6[0-4])$',
      allowed: 'a whole number from 1 to 64, or auto'
    }),
    text => (text === 'auto' ? availableParallelism() : Number(text))
  ),
  SHARDS: Whole(1, 1, 8, 'Over how many shards the topics are spread; the same in every instance'),
  WAIT_REPLICAS: Whole(0, 0, 16, 'How many replicas must have an event before it counts as stored'),
  RING_SIZE: Whole(1000, 1, 1_000_000, 'Events kept of each topic'),
  RING_TTL: Duration('24h', 'How long an event is kept; an older cursor is answered with a gap', '1s'),
  TOPICS: Type.String({
    default: '',
    description: 'File with the rules for topics: a JSON list, of which the first that matches a topic holds',
    allowed: 'a file (JSON)'
  }),
  HEARTBEAT: Duration('15s', 'Silence on a stream after which it is told its cursor', '100ms', MOST),
  // a client that is sent away is told up to twice as much, and its timers have a most as well
  RETRY: Duration('2s', 'How long a client waits before it reconnects', '0', '1d'),
  SEND_BUFFER: Size('256 KiB', 'Bytes that may wait in a connection before it is no longer fed live', '1'),
  STALL_TIMEOUT: Duration(
    '30s',
    'How long a full connection may drain nothing before it is ended',
    '100ms',
    MOST
  ),
  COMPRESS: Flag(true, 'Compress streams, pages and documents by gzip, for clients that accept it'),
  DRAIN: Duration('10s', 'Over how long the streams are ended at a stop', '0', MOST),
  MAX_CONNECTIONS: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: 10_000_000,
      description:
        'Open streams; 0: no limit. Default: what the descriptors, less a reserve, and the memory allow',
      allowed: 'a whole number from 0 to 10000000'
    })
  ),
  MAX_CONNECTIONS_PER_CLIENT: Whole(100, 0, 10_000_000, 'Open streams of one client; 0: no limit'),
  CONNECT_RATE: Whole(20, 0, 1_000_000, 'New streams a second of one client; 0: no limit'),
  WRITE_RATE: Whole(
    100,
    0,
    1_000_000,
    'Writes a second of one client, over all instances (a batch is one); 0: no limit'
  ),
  WRITE_BYTES: Size('8 MiB', 'Bytes a second that one client may write; 0: no limit', '0'),
  READ_RATE: Whole(
    50,
    0,
    1_000_000,
    'Pages, documents and WebSocket subscriptions a second of one client; 0: no limit'
  ),
  MEMORY: Type.Optional(
    Size(
      undefined,
      'What all clients together can make the process hold. Default: half of what V8 or the container allows',
      '1 MiB',
      '1024 GiB'
    )
  ),
  DATA_DIR: Type.String({
    default: '',
    description: 'Folder of the embedded store on disk; without it and without REDIS_URL, all is in memory',
    allowed: 'a folder'
  }),
  FSYNC: Flushing(
    'When what is published on disk is flushed: before it is answered (commit), every so often, or when the system does (off)'
  ),
  MAX_STORE_BYTES: Size(
    '8 GiB',
    'What the store on disk may take: then its oldest events go first',
    '1 MiB',
    '16384 GiB'
  ),
  MAX_EVENT_BYTES: Size('61440', 'The largest event', '1'),
  MAX_BATCH_BYTES: Size('8 MiB', 'The largest batch of events', '1'),
  MAX_PAGE_BYTES: Size(
    '1 MiB',
    'Bytes of events after which a page ends; the rest comes with the next one',
    '1'
  ),
  MAX_TOPICS: Whole(100, 1, 10_000, 'Topics of one subscription, and of all on one WebSocket'),
  MAX_TURNED_AWAY: Whole(
    1000,
    0,
    1_000_000,
    'Streams that are turned away and wait a second before they end; others end at once'
  ),
  WS_MESSAGE_RATE: Whole(50, 0, 1_000_000, 'Messages a second that a WebSocket client may send; 0: no limit'),
  WS_MAX_BYTES: Type.Optional(
    Size(
      undefined,
      'The largest message of a WebSocket client; 0: no limit. Default: twice MAX_EVENT_BYTES and 8 KiB',
      '0'
    )
  ),
  CORS_ORIGIN: Origins(
    'Origins that may use the server from a browser, such as https://example.org; * for any'
  ),
  TRUST_PROXY: Type.String({
    default: 'false',
    description: 'Proxies whose X-Forwarded-* headers count: true, false, or a list of addresses',
    allowed: 'true, false or a list of addresses'
  }),
  TLS_CERT: Type.String({
    default: '',
    description: 'Certificate file (PEM): HTTPS, with HTTP/2',
    allowed: 'a file'
  }),
  TLS_KEY: Type.String({ default: '', description: 'Key file (PEM) of the certificate', allowed: 'a file' }),
  LOG_LEVEL: Type.Enum(LEVELS, {
    default: 'info',
    description: 'What is logged',
    allowed: LEVELS.join(', ')
  }),
  DEMO: Type.Optional(
    Type.Boolean({
      description: 'Feed live topics of this machine and recorded prices. Default: true in development mode',
      allowed: 'true or false'
    })
  )
})

/** The settings as the program uses them: durations in milliseconds, sizes in bytes. */
export type Settings = StaticDecode<typeof Settings>

/** A setting that the server can't start with. The message has a line for each, with its value and what is allowed. */
export class ConfigError extends Error {
  override name = 'ConfigError'
}

/** Reads the settings from environment variables. An empty variable counts as none. Throws a `ConfigError`. */
export function readSettings(env: Record<string, string | undefined>): Settings {
  const given = Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value !== '')
  )
  const own = Object.fromEntries(Object.entries(given).filter(([name]) => name in Settings.properties))
  const input = Value.Convert(Settings, Value.Default(Settings, own))
  const wrong = [...Value.Errors(Settings, input)].map(({ instancePath }) => instancePath.slice(1))
  wrong.push(...notWhole(given))
  if (wrong.length === 0) wrong.push(...outOfRange(input as Record<string, unknown>))
  if (wrong.length > 0)
    throw new ConfigError([...new Set(wrong)].map(name => complaint(name, given[name])).join('\n'))
  const settings = Value.Decode(Settings, input)
  if (settings.REDIS_URL && settings.DATA_DIR) {
    throw new ConfigError('REDIS_URL and DATA_DIR: there is one store; unset one of them')
  }
  const store = settings.DATA_DIR ? 'the store on disk' : 'the memory broker'
  if (!settings.REDIS_URL && (settings.SHARDS > 1 || settings.WAIT_REPLICAS > 0)) {
    throw new ConfigError(
      `SHARDS and WAIT_REPLICAS: ${store} has one shard and no replica; set REDIS_URL instead`
    )
  }
  const useless = (
    ['REDIS_TLS_CA', 'REDIS_TLS_CERT', 'REDIS_TLS_KEY', 'REDIS_SENTINEL_PASSWORD'] as const
  ).find(name => settings[name] !== '')
  if (!settings.REDIS_URL && useless) {
    throw new ConfigError(`${useless}: there is no Redis to connect to; set REDIS_URL`)
  }
  if (!settings.REDIS_URL && settings.WORKERS > 1) {
    throw new ConfigError(
      `WORKERS=${given['WORKERS']}: ${store} belongs to one process; set REDIS_URL, which all workers share`
    )
  }
  if (Boolean(settings.TLS_CERT) !== Boolean(settings.TLS_KEY)) {
    throw new ConfigError('TLS_CERT and TLS_KEY: one is set without the other; both are needed')
  }
  const idle = (['JWT_AUDIENCE', 'JWT_ISSUER', 'ANONYMOUS_SUBSCRIBE'] as const).find(
    name => settings[name].length > 0
  )
  if (idle && !hasKeys(settings)) {
    throw new ConfigError(
      `${idle}: without a key everyone may do everything; set JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL as well`
    )
  }
  return settings
}

/**
 * Settings by the names of their environment variables: as text, as they would stand there (`'1h'`), or as the program
 * uses them (milliseconds, bytes, booleans, lists).
 */
export type PartialSettings = { readonly [Name in keyof Settings]?: Settings[Name] | string | undefined }

/** All settings: the given ones, and the defaults. Reads no environment. Throws a `ConfigError`. */
export function resolveSettings(partial: PartialSettings = {}): Settings {
  const unknown = Object.keys(partial).find(name => !(name in Settings.properties))
  if (unknown !== undefined) throw new ConfigError(`${unknown}: there is no such setting`)
  return readSettings(
    Object.fromEntries(
      Object.entries(partial).map(([name, value]) => [
        name,
        textOf(Settings.properties[name as keyof Settings], value)
      ])
    )
  )
}

/** A setting as its environment variable would have it. */
function textOf(schema: TSchema, value: PartialSettings[keyof Settings]): string | undefined {
  if (value === undefined || typeof value === 'string') return value
  // as text, a bare number is seconds
  const isDuration = 'pattern' in schema && new RegExp(schema.pattern as string).test('1ms')
  return isDuration && value !== 0 ? `${value}ms` : String(value)
}

/** Whether tokens are checked; else everyone may do everything: development mode. */
export function hasKeys({
  JWT_SECRET,
  JWT_PUBLIC_KEY,
  JWKS_URL
}: Pick<Settings, 'JWT_SECRET' | 'JWT_PUBLIC_KEY' | 'JWKS_URL'>): boolean {
  return [JWT_SECRET, JWT_PUBLIC_KEY, JWKS_URL].some(key => key !== '')
}

/** Conversion would cut a fraction off. */
function notWhole(given: Record<string, string | undefined>): string[] {
  return Object.entries(Settings.properties)
    .filter(
      ([name, schema]) => Type.IsInteger(schema) && given[name] !== undefined && !/^\d+$/.test(given[name])
    )
    .map(([name]) => name)
}

function outOfRange(input: Record<string, unknown>): string[] {
  return Object.entries(Settings.properties).flatMap(([name, schema]) => {
    try {
      Value.Decode(schema, input[name])
      return []
    } catch {
      return input[name] === undefined ? [] : [name]
    }
  })
}

function complaint(name: string, value: string | undefined): string {
  const { allowed, secret } = Settings.properties[name as keyof typeof Settings.properties] as TSchema & {
    allowed?: string
    secret?: boolean
  }
  const given = secret ? `${name}: these ${Buffer.byteLength(value ?? '')} bytes are` : `${name}=${value}:`
  return `${given} not allowed; it must be ${allowed}`
}
