export { ringside, type Ringside, type RingsideOptions } from './app.ts'
export { ConfigError, readSettings, Settings } from './config.ts'
export { createServer } from './server.ts'
