import { readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { basename, extname, join, resolve } from 'node:path'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'
import { nodeResolve } from '@rollup/plugin-node-resolve'
import { minify } from 'terser'
import ts from 'typescript'

const { version } = JSON.parse(readFileSync('package.json', 'utf8'))

/** The types are tsc's; here they only go. */
const COMPILER = {
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  verbatimModuleSyntax: true,
  sourceMap: true
}

const typescript = {
  name: 'typescript',
  transform(code, fileName) {
    if (!fileName.endsWith('.ts')) return null
    const { outputText, sourceMapText } = ts.transpileModule(code, { compilerOptions: COMPILER, fileName })
    return { code: outputText, map: sourceMapText }
  }
}

const terser = {
  name: 'terser',
  renderChunk: (code, _chunk, { format, sourcemap }) =>
    minify(code, {
      // what a plain script defines is for others
      module: format === 'es',
      ecma: 2022,
      // statements of their own are longer, and less once they are compressed
      compress: { passes: 3, sequences: false, if_return: false, global_defs: { RINGSIDE_VERSION: version } },
      // whose work it is stays with it
      format: { comments: /copyright/i },
      sourceMap: sourcemap
    })
}

/** Beside each file what goes over the wire: nothing is compressed while somebody waits. */
const compressed = {
  name: 'compressed',
  writeBundle({ dir, file }, bundle) {
    for (const name of Object.keys(bundle).filter(name => /\.(css|html|js|svg)$/.test(name))) {
      const path = dir === undefined ? file : join(dir, name)
      const content = readFileSync(path)
      const params = { [constants.BROTLI_PARAM_SIZE_HINT]: content.length }
      writeFileSync(`${path}.br`, brotliCompressSync(content, { params }))
      writeFileSync(`${path}.gz`, gzipSync(content, { level: 9 }))
    }
  }
}

// --- the pages ---

const PAGES = 'public'
const SITE = 'dist/public'

/** What the live page shows of the examples: code to copy. */
const EXAMPLES = [
  ...['bell/bell.js', 'chat/chat.js', 'cursors/cursors.js', 'dashboard/dashboard.js'],
  ...['document/document.js', 'job/job.js', 'job/run.js'],
  ...['login/login.js', 'login/page/session.js']
].map(path => `examples/${path}`)

const filesOf = (...kinds) => readdirSync(PAGES).filter(name => kinds.includes(extname(name)))
const read = name => readFileSync(join(PAGES, name), 'utf8')

/** The scripts that the pages load, as rollup has its inputs. */
function scriptsOfPages() {
  const scripts = filesOf('.html').flatMap(page =>
    [...read(page).matchAll(/<script type="module" src="([\w-]+)\.js"/g)].map(([, name]) => name)
  )
  return Object.fromEntries([...new Set(scripts)].map(name => [name, join(PAGES, `${name}.js`)]))
}

/**
 * A style with those that it imports, of packages or of the pages, in it: a page has one file to wait for. Its comments stay
 * with us.
 */
function styleOf(name) {
  const whole = read(name).replace(/@import '(.+?)';\n/g, (_all, path) =>
    readFileSync(path.startsWith('./') ? join(PAGES, path) : join('node_modules', path), 'utf8')
  )
  return whole.replace(/\s*\/\*[^]*?\*\//g, '')
}

/**
 * Gives the pages what they load by names that hold a hash of the content: what a browser has of such a name is right for
 * ever.
 */
const pages = {
  name: 'pages',
  buildStart() {
    rmSync(SITE, { recursive: true, force: true })
  },
  // the client library is not a copy of what it is built from
  resolveId: source => (source === './client.js' ? resolve('src/client/client.ts') : null),
  generateBundle(_options, bundle) {
    const names = new Map()
    for (const name of filesOf('.css', '.svg')) {
      const source = extname(name) === '.css' ? styleOf(name) : read(name)
      names.set(name, this.getFileName(this.emitFile({ type: 'asset', name, source })))
      // other pages show the icon
      if (extname(name) === '.svg') this.emitFile({ type: 'asset', fileName: name, source })
    }
    for (const { isEntry, name, fileName } of Object.values(bundle)) {
      if (isEntry) names.set(`${name}.js`, fileName)
    }
    for (const name of filesOf('.html')) {
      const source = read(name).replace(/"([\w-]+\.(?:css|js|svg))"/g, (all, file) =>
        names.has(file) ? `"${names.get(file)}"` : all
      )
      this.emitFile({ type: 'asset', fileName: name, source })
    }
    for (const fileName of EXAMPLES)
      this.emitFile({ type: 'asset', fileName, source: readFileSync(fileName, 'utf8') })
  }
}

/** A part of the client library as one module. */
const library = (input, file) => ({
  input: `src/client/${input}`,
  output: {
    file: `dist/client/${file}`,
    sourcemap: true,
    // as a browser shows them, whatever folder they were built in
    sourcemapPathTransform: path => `ringside/client/${basename(path)}`
  },
  plugins: [typescript, terser, compressed]
})

export default [
  // what `ringside-hub/client` imports: a bundler leaves out what is not used of it
  library('client.ts', 'client.js'),
  // what the server hands out, where nobody leaves out anything: what only a WebSocket needs is a file of its own
  library('hosted.ts', 'hosted/client.js'),
  library('socket.ts', 'hosted/client-socket.js'),
  // the pages as they are served
  {
    input: scriptsOfPages(),
    output: {
      dir: SITE,
      entryFileNames: 'assets/[name]-[hash].js',
      chunkFileNames: 'assets/[name]-[hash].js',
      assetFileNames: 'assets/[name]-[hash][extname]'
    },
    plugins: [pages, nodeResolve(), typescript, terser, compressed]
  },
  // what Swagger UI is given: it loads plain scripts
  {
    input: join(PAGES, 'api.js'),
    output: { file: 'dist/docs/api.js', format: 'iife', name: 'ringside' },
    plugins: [terser]
  }
]
