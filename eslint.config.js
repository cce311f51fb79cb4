import js from '@eslint/js'
import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'

const PROCESS =
  'What is the process (its environment, signals, streams, end) belongs to process/ and cli/: hand it in.'

/** What a page has and the rules know nothing of: only what our pages use, so that a slip of the pen is seen. */
const BROWSER = [
  ...[
    'AbortController',
    'AbortSignal',
    'CustomEvent',
    'EventSource',
    'EventTarget',
    'FormData',
    'ResizeObserver',
    'Response',
    'TextDecoder',
    'TextDecoderStream',
    'WebSocket'
  ],
  ...[
    'URL',
    'URLSearchParams',
    'atob',
    'clearInterval',
    'clearTimeout',
    'crypto',
    'devicePixelRatio',
    'document',
    'fetch'
  ],
  ...[
    'getComputedStyle',
    'localStorage',
    'location',
    'matchMedia',
    'navigator',
    'performance',
    'requestAnimationFrame',
    'sessionStorage'
  ],
  ...['setInterval', 'setTimeout', 'uPlot', 'window']
]

// Prettier does the format, and dependency-cruiser says who may import whom: neither is repeated here.
export default defineConfig(
  globalIgnores(['dist/', '.tap/', 'coverage/']),
  {
    // a rule that is wrong for one line is wrong: change the line, or the rule here, with its reason
    linterOptions: { noInlineConfig: true, reportUnusedDisableDirectives: 'error' }
  },
  js.configs.recommended,
  {
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-var': 'error',
      'object-shorthand': 'error',
      'prefer-const': 'error'
    }
  },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.recommendedTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/consistent-type-exports': 'error',
      '@typescript-eslint/no-deprecated': 'error',
      // what is taken out of a rest, and what a signature asks for
      '@typescript-eslint/no-unused-vars': ['error', { ignoreRestSiblings: true, argsIgnorePattern: '^_' }],
      '@typescript-eslint/prefer-readonly': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      // tap awaits its subtests itself
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafePromises: [{ from: 'package', name: 'PromiseWithSubtest', package: '@tapjs/core' }]
        }
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowArray: true }],
      // a handler, a plugin or a test is async so that what it throws is a rejection, whether it waits or not
      '@typescript-eslint/require-await': 'off',
      // options and what a test builds are taken apart by name: `{ publisher, unready }`
      '@typescript-eslint/unbound-method': 'off'
    }
  },
  {
    files: ['src/**/*.ts'],
    rules: {
      'no-console': 'error',
      'no-restricted-globals': ['error', { name: 'process', message: PROCESS }],
      'no-restricted-imports': [
        'error',
        { name: 'node:process', message: PROCESS },
        { name: 'process', message: PROCESS }
      ]
    }
  },
  {
    files: ['src/process/**/*.ts', 'src/cli/**/*.ts'],
    rules: { 'no-console': 'off', 'no-restricted-globals': 'off' }
  },
  {
    // these ask the process what it is (its version, its memory, what Node has); they don't act on it
    files: [
      ...['src/metrics.ts', 'src/metrics/vitals.ts', 'src/feeds/demo/host.ts', 'src/net/direct.ts'],
      'src/admin/instance.ts'
    ],
    rules: {
      'no-restricted-globals': 'off',
      'no-restricted-properties': [
        'error',
        ...['argv', 'emit', 'env', 'exit', 'exitCode', 'kill', 'on', 'once', 'stderr', 'stdin', 'stdout'].map(
          property => ({
            object: 'process',
            property,
            message: PROCESS
          })
        )
      ]
    }
  },
  {
    // what the benchmarks compare with is installed on its own, so that here its types may be unknown
    files: ['bench/**/*.ts'],
    extends: [tseslint.configs.disableTypeChecked]
  },
  {
    files: [
      'public/**/*.js',
      'examples/{bell,chat,cursors,dashboard,document,gap}/*.js',
      'examples/job/job.js',
      'examples/login/page/*.js'
    ],
    languageOptions: { globals: Object.fromEntries(BROWSER.map(name => [name, 'readonly'])) }
  },
  {
    files: ['**/*.cjs'],
    languageOptions: { sourceType: 'commonjs', globals: { module: 'writable' } }
  }
)
