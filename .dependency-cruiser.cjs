// Who may import whom. The parts, and why each stands where it does: docs/architecture.md.

/** An import of a value, not of a type alone: what still is there when the program runs. */
const VALUE = { dependencyTypesNot: ['type-only'] }

/** Parts, by the beginnings of its files' paths in src/. */
const part = (...names) => `^src/(${names.join('|')})`

/** What a part may import from us: all else of ours is forbidden. `types`: of these, types alone. */
function mayImport(name, files, { values = [], types = [] }) {
  const from = { path: files }
  const everything = [...values, ...types]
  return [
    {
      name,
      severity: 'error',
      comment: `may import from us: ${everything.join(', ') || 'nothing'}`,
      from,
      to: { path: '^src/', ...(everything.length > 0 && { pathNot: part(...everything) }) }
    },
    ...(types.length > 0
      ? [
          {
            name: `${name}-types`,
            severity: 'error',
            comment: `may import types alone of: ${types.join(', ')}`,
            from,
            to: { path: part(...types), ...VALUE }
          }
        ]
      : [])
  ]
}

/** A package that only these files may import; `types`: those that may import its types. */
function onlyFor(name, module, files, types) {
  const to = { path: `(^|/)node_modules/${module}/` }
  return [
    { name, severity: 'error', from: { path: '^src/', pathNot: files }, to: { ...to, ...VALUE } },
    { name: `${name}-types`, severity: 'error', from: { path: '^src/', pathNot: types ?? files }, to }
  ]
}

module.exports = {
  forbidden: [
    {
      name: 'no-circle',
      severity: 'error',
      comment: 'files that need each other, be it for types alone, can only be read together',
      from: { path: '^src/' },
      to: { circular: true }
    },
    {
      name: 'no-orphan',
      severity: 'error',
      comment: 'a file that nobody imports and that imports nobody',
      from: { path: '^src/', orphan: true },
      to: {}
    },
    {
      name: 'unresolvable',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true }
    },
    {
      name: 'not-for-production',
      severity: 'error',
      comment:
        'what is only there for development, or comes only with another package, is not there in production',
      from: { path: '^src/' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'] }
    },
    {
      name: 'nothing-of-the-tests',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|public|docs)/' }
    },

    {
      name: 'nothing-at-all',
      severity: 'error',
      comment: 'the vocabulary and the clock need neither us nor anybody else',
      from: { path: '^src/(event|clock)\\.ts$' },
      to: {}
    },
    ...mayImport('config', '^src/config\\.ts$', { values: ['config/'] }),
    ...mayImport('config-kinds', '^src/config/', {}),
    ...mayImport('problem', '^src/problem\\.ts$', {}),
    ...mayImport('metrics', '^src/metrics(\\.ts$|/)', { values: ['memory\\.ts', 'metrics/'] }),
    ...mayImport('memory', '^src/memory\\.ts$', {}),
    ...mayImport('turn', '^src/turn\\.ts$', { values: ['asker.ts'] }),
    ...mayImport('round', '^src/round\\.ts$', { values: ['turn.ts'] }),
    ...mayImport('asker', '^src/asker\\.ts$', {}),
    ...mayImport('shared', '^src/shared\\.ts$', { values: ['asker.ts'] }),
    ...mayImport('ring', '^src/ring\\.ts$', { values: ['event.ts'] }),
    ...mayImport('wire', '^src/wire/', { values: ['event.ts', 'wire/'] }),
    ...mayImport('lines', '^src/lines\\.ts$', {}),
    ...mayImport('recording', '^src/recording\\.ts$', { values: ['lines.ts', 'wire/json.ts'] }),
    ...mayImport('input', '^src/input\\.ts$', { values: ['problem.ts', 'wire/json.ts'] }),
    ...mayImport('rules', '^src/rules/rules\\.ts$', { values: ['event.ts', 'problem.ts'] }),
    ...mayImport('rules-file', '^src/rules/file\\.ts$', {
      values: ['config.ts', 'config/kinds.ts', 'event.ts', 'rules/']
    }),
    ...mayImport('publisher', '^src/publisher\\.ts$', {
      values: ['access/grant.ts', 'event.ts', 'problem.ts'],
      types: ['broker/event-log.ts', 'clock.ts', 'metrics.ts', 'rules/rules.ts']
    }),
    ...mayImport('program', '^src/program\\.ts$', {
      values: ['event.ts', 'input.ts', 'problem.ts', 'publisher.ts', 'round.ts'],
      types: ['broker/event-log.ts']
    }),
    {
      name: 'grants',
      severity: 'error',
      comment: 'what somebody may is known without how it was found out',
      from: { path: '^src/access/grant\\.ts$' },
      to: { path: '^src/access/', ...VALUE }
    },
    {
      name: 'serving-readers',
      severity: 'error',
      comment: 'a wish is served without its request',
      from: { path: '^src/http/readers\\.ts$' },
      to: { path: '(^|/)node_modules/(fastify|@fastify)/|^src/http/(access|answer|reads)\\.ts$' }
    },
    ...mayImport('access', '^src/access/', {
      values: ['access/', 'config.ts', 'event.ts', 'problem.ts'],
      types: ['clock.ts', 'rules/rules.ts']
    }),
    ...mayImport('broker', '^src/broker/', {
      values: [
        ...['broker/', 'asker.ts', 'event.ts', 'ring.ts', 'clock.ts', 'memory.ts', 'turn.ts', 'config.ts'],
        ...['lines.ts', 'rules/rules.ts']
      ]
    }),
    {
      name: 'broker-interface',
      severity: 'error',
      comment: 'what a broker owes knows none that keeps it',
      from: { path: '^src/broker/[^/]+$' },
      to: { path: '^src/broker/.+/' }
    },
    {
      name: 'redis-parts',
      severity: 'error',
      comment:
        'only what joins the parts of a shard, or moves a store, knows the connections; the parts can do without a socket',
      from: { path: '^src/broker/redis/', pathNot: '/(broker|connections|open|shard|transfer)\\.ts$' },
      to: { path: '^src/broker/redis/(connections|open|subscriber)\\.ts$' }
    },
    onlyFor('leveldb', 'classic-level', '^src/broker/disk/store\\.ts$')[0],
    {
      name: 'brokers-apart',
      severity: 'error',
      comment: 'one broker knows nothing of the other; what lives in one process has some parts in common',
      from: { path: '^src/broker/(.+)/' },
      to: { path: '^src/broker/.+/', pathNot: '^src/broker/($1|embedded)/' }
    },
    ...mayImport('hub', '^src/hub/', {
      values: [
        'hub/',
        'asker.ts',
        'event.ts',
        'ring.ts',
        'memory.ts',
        'rules/rules.ts',
        'shared.ts',
        'turn.ts',
        'wire/gzip.ts',
        'wire/sum.ts'
      ],
      types: ['broker/', 'clock.ts', 'config.ts', 'metrics.ts', 'wire/format.ts', 'wire/packing.ts']
    }),
    ...mayImport('admin', '^src/admin/', {
      values: ['admin/', 'event.ts', 'memory.ts', 'problem.ts', 'turn.ts'],
      types: ['broker/', 'clock.ts', 'config.ts', 'hub/', 'rules/rules.ts']
    }),
    {
      name: 'admin-apart',
      severity: 'error',
      comment: 'what serves clients does not know who watches it',
      from: { path: '^src/(hub|broker|feeds|websocket|net|wire)/' },
      to: { path: '^src/admin/' }
    },
    ...mayImport('feeds', '^src/feeds/', {
      values: [
        'feeds/',
        'asker.ts',
        'event.ts',
        'problem.ts',
        'publisher.ts',
        'recording.ts',
        'shared.ts',
        'turn.ts',
        'wire/json.ts'
      ],
      types: ['broker/event-log.ts', 'clock.ts']
    }),
    ...mayImport('net', '^src/net/', {
      values: ['net/', 'config.ts', 'memory.ts', 'round.ts', 'wire/packing.ts'],
      types: ['clock.ts', 'hub/session.ts', 'hub/sink.ts']
    }),
    {
      name: 'doors',
      severity: 'error',
      comment: 'the doors open onto every part but those that build and run it',
      from: { path: '^src/(http|websocket)/' },
      to: { path: part('app.ts', 'process/', 'index.ts', 'cli/') }
    },
    {
      name: 'websocket-apart',
      severity: 'error',
      comment: 'HTTP works without WebSockets',
      from: { path: '^src/http/' },
      to: { path: '^src/websocket/' }
    },
    {
      name: 'which-broker',
      severity: 'error',
      comment:
        'which broker there is, app.ts alone knows; the command line looks after stores that are not in use, and moves them',
      from: { path: '^src/(?!app\\.ts|broker/)' },
      to: { path: '^src/broker/.+/', pathNot: '^src/broker/(disk/inspection|(disk|redis)/transfer)\\.ts$' }
    },
    {
      name: 'app',
      severity: 'error',
      comment: 'builds, and never runs',
      from: { path: '^src/app\\.ts$' },
      to: { path: part('process/', 'index.ts', 'cli/') }
    },
    ...mayImport('process', '^src/process/', {
      values: ['process/', 'app.ts', 'clock.ts', 'config.ts', 'memory.ts', 'metrics.ts', 'problem.ts', 'net/']
    }),
    {
      name: 'worker-apart',
      severity: 'error',
      comment: 'a worker and the one over it are two processes, which share what they say to each other',
      from: { path: '^src/process/(worker|signals|messages)\\.ts$' },
      to: { path: '^src/process/(supervisor|measurements)\\.ts$' }
    },
    {
      name: 'supervisor-apart',
      severity: 'error',
      comment: 'the one over the workers serves nobody',
      from: { path: '^src/process/(supervisor|measurements)\\.ts$' },
      to: { path: '^src/', pathNot: '^src/(process/(supervisor|measurements|messages)|metrics)\\.ts$' }
    },
    ...mayImport('client', '^src/client/', { values: ['client/'] }),
    {
      name: 'client-apart',
      severity: 'error',
      comment: 'is made for browsers, and built on its own; the command line comes back as it does',
      from: { path: '^src/(?!client/|cli/)' },
      to: { path: '^src/client/' }
    },
    {
      name: 'client-alone',
      severity: 'error',
      comment: 'needs nobody: neither a package nor Node.js',
      from: { path: '^src/client/' },
      to: { pathNot: '^src/' }
    },
    ...mayImport('cli', '^src/cli/', {
      values: [
        ...['cli/', 'access/', 'config.ts', 'event.ts', 'lines.ts', 'process/server.ts', 'recording.ts'],
        ...['client/(reconnect|stream|transports).ts', 'wire/json.ts'],
        ...[
          'broker/disk/inspection.ts',
          'broker/transfer.ts',
          'broker/(disk|redis)/transfer.ts',
          'rules/file.ts'
        ]
      ]
    }),
    ...mayImport('index', '^src/index\\.ts$', { values: ['app.ts', 'config.ts', 'process/server.ts'] }),

    ...onlyFor(
      'ioredis',
      'ioredis',
      '^src/broker/redis/(connections|open|subscriber)\\.ts$',
      '^src/broker/redis/(connections|open|subscriber|url|transfer|store-reading|store-filling)\\.ts$'
    ),
    ...onlyFor('jose', 'jose', '^src/access/'),
    ...onlyFor('ws', 'ws', '^src/cli/doctor/websocket\\.ts$'),
    ...onlyFor('csv-parse', 'csv-parse', '^src/recording\\.ts$'),
    ...onlyFor('commander', '(commander|@bomb\\.sh/tab)', '^src/cli/'),
    ...onlyFor('jsonc-parser', 'jsonc-parser', '^src/rules/file\\.ts$'),
    ...onlyFor('prom-client', 'prom-client', '^src/metrics(\\.ts$|/)'),
    ...onlyFor('cborg', 'cborg', '^src/wire/'),
    ...onlyFor(
      'fastify',
      '(fastify|fastify-plugin|@fastify)',
      '^src/(net/|http/|websocket/|process/|app\\.ts)',
      '^src/(net/|http/|websocket/|feeds/|process/|app\\.ts)'
    )
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    // types count as well: a wrong direction is wrong before the program runs
    tsPreCompilationDeps: true,
    combinedDependencies: false,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default', 'types'],
      extensions: ['.ts', '.js', '.cjs', '.mjs', '.json']
    }
  }
}
