// The checker without a page: for programs and tests that load the script.

globalThis.ultrafolio = { readLink, madeLink, commandOf, checkText, observed, exploring, safetyOf, livenessOf, systemOf, readScenario, policyOf, result_text, Refused };
