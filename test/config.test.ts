import fc from 'fast-check'
import t from 'tap'
import { ConfigError, readSettings } from '../src/config.ts'

t.test('the defaults are those of the contract', async t => {
  t.match(readSettings({}), {
    HOST: '127.0.0.1',
    PORT: 3000,
    INSECURE: false,
    RING_SIZE: 1000,
    RING_TTL: 86_400_000,
    HEARTBEAT: 15_000,
    RETRY: 2000,
    SEND_BUFFER: 262_144,
    STALL_TIMEOUT: 30_000,
    DRAIN: 10_000,
    MAX_EVENT_BYTES: 61_440,
    MAX_TOPICS: 100,
    WS_MESSAGE_RATE: 50,
    CORS_ORIGIN: [],
    TRUST_PROXY: 'false',
    TLS_CERT: '',
    TLS_KEY: '',
    LOG_LEVEL: 'info'
  })
  t.equal(readSettings({}).MAX_CONNECTIONS, undefined, 'what the descriptors allow')
})

t.test('an empty variable counts as none, and unknown ones are not ours', async t => {
  t.strictSame(
    readSettings({ PORT: '', HEARTBEAT: '', CORS_ORIGIN: '', PATH: '/bin', __proto__: 'x' }),
    readSettings({})
  )
})

t.test('durations', async t => {
  for (const [text, ms] of Object.entries({
    '500ms': 500,
    '15s': 15_000,
    '15 s': 15_000,
    '10m': 600_000,
    '2h': 7_200_000,
    '1d': 86_400_000,
    '1.5h': 5_400_000,
    '20': 20_000
  })) {
    t.equal(readSettings({ HEARTBEAT: text }).HEARTBEAT, ms, text)
  }
  t.equal(readSettings({ DRAIN: '0' }).DRAIN, 0)
})

t.test('sizes', async t => {
  for (const [text, bytes] of Object.entries({
    '65536': 65_536,
    '100b': 100,
    '256 KiB': 262_144,
    '256KiB': 262_144,
    '256kb': 262_144,
    '1 MiB': 1_048_576,
    '1mb': 1_048_576
  })) {
    t.equal(readSettings({ SEND_BUFFER: text }).SEND_BUFFER, bytes, text)
  }
  t.equal(readSettings({}).WS_MAX_BYTES, undefined, 'by the largest event')
  t.equal(readSettings({ WS_MAX_BYTES: '0' }).WS_MAX_BYTES, 0)
  t.equal(readSettings({ WS_MAX_BYTES: '1 MiB' }).WS_MAX_BYTES, 1_048_576)
})

t.test('lists, flags and numbers', async t => {
  t.throws(() => readSettings({ CORS_ORIGIN: 'https://a.example,null' }), {
    message: /^CORS_ORIGIN=https:\/\/a\.example,null: not allowed; .*null is none/
  })
  t.strictSame(readSettings({ CORS_ORIGIN: ' https://a.example ,http://b.example:81,' }).CORS_ORIGIN, [
    'https://a.example',
    'http://b.example:81'
  ])
  t.equal(readSettings({ INSECURE: 'true' }).INSECURE, true)
  t.equal(readSettings({ DEMO: 'false' }).DEMO, false)
  t.equal(readSettings({ MAX_CONNECTIONS: '0' }).MAX_CONNECTIONS, 0)
  t.equal(readSettings({ PORT: '0' }).PORT, 0)
  t.equal(readSettings({ PORT: '65535' }).PORT, 65_535)
})

const WRONG: Record<string, readonly string[]> = {
  PORT: ['65536', '-1', '80.5', 'http', '80 81'],
  INSECURE: ['yes', 'maybe', '2'],
  RING_SIZE: ['0', '-5', '1.5', 'many'],
  RING_TTL: ['0', '-1h', '1 fortnight', 'for ever'],
  HEARTBEAT: ['0', '99ms', '10 minutes please', '30d', '1e3', 'Infinity', 'NaN'],
  RETRY: ['-1s', 'soon', '25h'],
  SEND_BUFFER: ['0', '-1', '1.5mb', '10 parsecs', '99999 GiB'],
  STALL_TIMEOUT: ['0', 'never', '30d'],
  DRAIN: ['-1', 'x', '30d'],
  MAX_CONNECTIONS: ['-1', 'x', '1.5'],
  MAX_EVENT_BYTES: ['0', 'x'],
  MAX_TOPICS: ['0', 'x'],
  WS_MESSAGE_RATE: ['-1', '0.5', 'x'],
  WS_MAX_BYTES: ['-1', 'x', '2 GiB'],
  LOG_LEVEL: ['loud', 'INFO'],
  DEMO: ['perhaps']
}

t.test('a wrong one ends the start with a line that names it, its value and what is allowed', async t => {
  for (const [name, values] of Object.entries(WRONG)) {
    for (const value of values) {
      const message = complaintOf({ [name]: value })
      t.ok(message.startsWith(`${name}=${value}: `), message)
      t.match(message, /must be \S/)
      t.notMatch(message, '\n')
    }
  }
})

t.test('several wrong ones have a line each', async t => {
  const lines = complaintOf({ PORT: 'x', LOG_LEVEL: 'y', HEARTBEAT: 'z', RING_SIZE: '5' }).split('\n')
  t.strictSame(lines.map(line => line.split('=')[0]).sort(), ['HEARTBEAT', 'LOG_LEVEL', 'PORT'])
  const small = complaintOf({ HEARTBEAT: '1ms', STALL_TIMEOUT: '0', RING_TTL: '0' }).split('\n')
  t.strictSame(small.map(line => line.split('=')[0]).sort(), ['HEARTBEAT', 'RING_TTL', 'STALL_TIMEOUT'])
})

t.test('what is allowed is what is taken: any text is settings or a ConfigError', async t => {
  const names = Object.keys(WRONG)
  fc.assert(
    fc.property(fc.constantFrom(...names), fc.string({ maxLength: 12, unit: 'binary' }), (name, value) => {
      try {
        readSettings({ [name]: value })
        return true
      } catch (error) {
        return error instanceof ConfigError && error.message.startsWith(`${name}=${value}`)
      }
    }),
    { numRuns: 500 }
  )
  t.pass('for 500 texts')
})

t.test('TLS_CERT and TLS_KEY need each other', async t => {
  t.match(complaintOf({ TLS_CERT: 'a.pem' }), /TLS_CERT.*TLS_KEY/)
  t.match(complaintOf({ TLS_KEY: 'a.pem' }), /TLS_CERT.*TLS_KEY/)
})

function complaintOf(env: Record<string, string>): string {
  try {
    readSettings(env)
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  throw new Error(`taken: ${JSON.stringify(env)}`)
}

t.test('origins are as a browser says them, and what would never match ends the start', async t => {
  const given = 'https://App.example/, http://a.example:80,https://b.example:443,http://[::1]:81'
  t.strictSame(readSettings({ CORS_ORIGIN: given }).CORS_ORIGIN, [
    'https://app.example',
    'http://a.example',
    'https://b.example',
    'http://[::1]:81'
  ])
  // apps in a shell, and extensions
  for (const origin of ['capacitor://localhost', 'tauri://localhost', 'chrome-extension://abcdef'])
    t.strictSame(readSettings({ CORS_ORIGIN: `${origin.toUpperCase()}/` }).CORS_ORIGIN, [origin])
  for (const origin of [
    ...[
      'https://a.example/path',
      'https://a.example?x',
      'https://u@a.example',
      'a.example',
      'a.example:443',
      'ftp://a.example',
      'file://',
      'wss://a.example',
      'capacitor://a/path'
    ],
    ...['"https://a.example"', "'https://a.example'", 'https://*.example', '*,https://a.example']
  ])
    t.throws(() => readSettings({ CORS_ORIGIN: origin }), { message: /^CORS_ORIGIN=.*not allowed/ }, origin)
  for (const host of ['http://a', 'a:3000', '127.0.0.1:3000', '[::1]', '"a"', 'a/b'])
    t.throws(() => readSettings({ HOST: host }), { message: /^HOST=.*not allowed/ }, host)
  for (const host of ['localhost', '::1', '::', '0.0.0.0', '::ffff:127.0.0.1', 'fe80::1%eth0'])
    t.equal(readSettings({ HOST: host }).HOST, host)
})
