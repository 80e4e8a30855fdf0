const tip=document.getElementById("tip"),svg=document.querySelector("svg");
for(const title of svg.querySelectorAll("g>title")){title.parentNode.words=title.textContent;title.remove()}
const clear=()=>{for(const lit of svg.querySelectorAll(".lit"))lit.classList.remove("lit")};
svg.addEventListener("mousemove",event=>{
  const g=event.target.closest("g.p,g.event");
  clear();
  if(!g){tip.style.display="none";return}
  tip.textContent=g.words;
  tip.style.display="block";
  tip.style.left=Math.max(4,Math.min(event.clientX+14,innerWidth-tip.offsetWidth-8))+"px";
  tip.style.top=Math.max(4,Math.min(event.clientY+14,innerHeight-tip.offsetHeight-8))+"px";
  if(g.dataset.pid){
    const lane=g.closest("g.lane");
    for(const other of lane.querySelectorAll(`[data-ppid="${g.dataset.pid}"],[data-pid="${g.dataset.ppid}"]`))other.classList.add("lit")
  }
});
svg.addEventListener("mouseleave",()=>{tip.style.display="none";clear()});
