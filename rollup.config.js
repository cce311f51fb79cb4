import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
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

/** The client library as one module: what /client.js is, and what `ringside-hub/client` imports. */
export default {
  input: 'src/client/client.ts',
  output: {
    file: 'dist/client/client.js',
    sourcemap: true,
    // as a browser shows them, whatever folder they were built in
    sourcemapPathTransform: path => `ringside/client/${basename(path)}`
  },
  plugins: [
    {
      name: 'typescript',
      transform(code, fileName) {
        const { outputText, sourceMapText } = ts.transpileModule(code, {
          compilerOptions: COMPILER,
          fileName
        })
        return { code: outputText, map: sourceMapText }
      }
    },
    {
      name: 'terser',
      renderChunk: code =>
        minify(code, {
          module: true,
          ecma: 2022,
          compress: { passes: 3, global_defs: { RINGSIDE_VERSION: version } },
          sourceMap: true
        })
    }
  ]
}
