// Signing in. The session arrives as a cookie; the page only remembers the name.
import { post } from "./api.js";
import { onSubmit } from "./form.js";
import { nextPage, remember } from "./session.js";

for (const link of document.querySelectorAll("a[data-next]")) link.search = location.search;

onSubmit(document.querySelector("form"), async ({ tel, password }) => {
  const { user } = await post("/user/login", { tel, password });
  remember(user);
  location.assign(nextPage());
});
