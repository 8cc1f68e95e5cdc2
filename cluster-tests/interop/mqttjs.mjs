// Runs the MQTT.js suites: node mqttjs.mjs ENDPOINTS.json. One line a case on stdout.

import './mqttjs_core.mjs'
import './mqttjs_v5.mjs'
import { main } from './mqttjs_harness.mjs'

await main()
